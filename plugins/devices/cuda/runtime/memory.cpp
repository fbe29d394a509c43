#include "plugins/devices/cuda/runtime/memory.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {

FreeMemory free_memory() {
  FreeMemory memory;
  check(cudaMemGetInfo(&memory.free, &memory.total), "asking for the GPU's free memory");
  return memory;
}

DeviceMemory::DeviceMemory(std::size_t bytes, const std::string& purpose) {
  if (bytes == 0) return;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const FreeMemory memory = free_memory();
    throw OutOfMemoryError(purpose + " needs " + bytes_text(bytes) +
                               " of the GPU's memory, and of its " + bytes_text(memory.total) +
                               " there are " + bytes_text(memory.free) + " free",
                           bytes, memory.free);
  }
  check(error, "taking memory for " + purpose);
  data_ = static_cast<char*>(data);
  bytes_ = bytes;
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

PinnedMemory::PinnedMemory(std::size_t bytes, const std::string& purpose) {
  if (bytes == 0) return;
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const std::size_t available = static_cast<std::size_t>(sysconf(_SC_AVPHYS_PAGES)) *
                                  static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    throw DeviceError(purpose + " needs " + bytes_text(bytes) +
                      " of the machine's memory pinned in its place, and " + bytes_text(available) +
                      " are free; ulimit -l and containers may allow less");
  }
  check(error, "taking pinned memory for " + purpose);
  data_ = static_cast<char*>(data);
  bytes_ = bytes;
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

}  // namespace ftrain::cuda
