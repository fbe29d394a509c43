// Memory of the GPU, and of the host where the GPU reads and writes it, by ownership.
//
// Both are at least 256-byte aligned; contents are undefined. Failure: OutOfMemoryError, for the
// host's DeviceError, naming the purpose, what it needs and what is free. Freeing never throws.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace ftrain::cuda {

// What the GPU has, at this moment.
struct FreeMemory {
  std::size_t free = 0, total = 0;
};
FreeMemory free_memory();

class DeviceMemory {
 public:
  DeviceMemory() = default;
  // `purpose`: "the step's arena".
  DeviceMemory(std::size_t bytes, const std::string& purpose);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Pages of the host that stay where they are: one address for the host and for all GPUs.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(std::size_t bytes, const std::string& purpose);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace ftrain::cuda
