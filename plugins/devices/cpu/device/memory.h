// A run of memory from the system: zeroed, on a 2 MiB border, in huge pages where there are any.
//
// Until something is written it takes address space alone.
#pragma once

#include <cstddef>
#include <string>

namespace ftrain::cpu {

class Memory {
 public:
  Memory() = default;
  // DeviceError naming `purpose` when the system has no such amount.
  Memory(std::size_t bytes, const std::string& purpose);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  // Takes the pages now, 2 MiB by each of `threads` OpenMP threads in turn: on a machine of several
  // memory nodes they lie on all nodes of the threads, whatever tensor a page belongs to. Contents
  // stay. The second call does nothing.
  void touch(int threads);

 private:
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
  bool touched_ = false;
};

// "1.5 GiB"
std::string bytes_text(std::size_t bytes);

}  // namespace ftrain::cpu
