// A file mapped read-only into memory.
//
// Ownership: the mapping lives as long as the object; spans into it die with it. Moving keeps them.
// Threads: reading is free from any thread. Failure: DataError naming the file. A file that another
// process shortens meanwhile ends this one with SIGBUS: map only files that are written once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "ftrain/plugin/api.h"

namespace ftrain {

class FTRAIN_API MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::uint8_t> bytes() const { return {data_, size_}; }
  // Gives the memory of the whole pages in [first, first + bytes) back to the system: a file that
  // is read once from end to end need not fill the memory. Reading them again is allowed.
  void forget(const std::uint8_t* first, std::size_t bytes) const;

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ftrain
