// What calls of the CUDA runtime return, as errors that people read.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace ftrain::cuda {

// DeviceError: what was being done ("copying the inputs"), CUDA's name and text for what happened,
// and the way out. The runtime forgets the error, as far as it can.
[[noreturn]] void fail(cudaError_t error, std::string_view doing);

inline void check(cudaError_t error, std::string_view doing) {
  if (error != cudaSuccess) [[unlikely]]
    fail(error, doing);
}

// "cudaErrorIllegalAddress (an illegal memory access was encountered)"
std::string text_of(cudaError_t error);
// "13.0" of 13000
std::string version_text(int version);
// "1.5 GiB"
std::string bytes_text(std::size_t bytes);

}  // namespace ftrain::cuda
