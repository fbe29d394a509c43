// A run of memory from the system: zeroed, on a 2 MiB border, in huge pages where there are any.
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

 private:
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  char* data_ = nullptr;
};

// "1.5 GiB"
std::string bytes_text(std::size_t bytes);

}  // namespace ftrain::cpu
