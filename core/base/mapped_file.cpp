#include "ftrain/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto fail = [&](const std::string& what, int descriptor) {
    const std::string reason = std::strerror(errno);
    if (descriptor >= 0) ::close(descriptor);
    throw DataError(path.string() + ": cannot " + what + ": " + reason);
  };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("open", descriptor);
  struct stat status;
  if (::fstat(descriptor, &status) != 0) fail("read its size", descriptor);
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw DataError(path.string() + ": is no regular file");
  }
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ > 0) {  // an empty mapping is an error to mmap, an empty file is none to us
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) fail("map into memory", descriptor);
    data_ = static_cast<const std::uint8_t*>(address);
  }
  ::close(descriptor);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

void MappedFile::forget(const std::uint8_t* first, std::size_t bytes) const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(first) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(first) + bytes) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace ftrain
