// The one way in which CUDA kernels are started: enqueues and checks. For whoever has device code:
// the device's plugin, heads and optimizers. Core itself never includes it.
//
// A kernel that cannot be started throws DeviceError with its name. What goes wrong while it runs
// is the stream's to say, at the next call that waits for it.
#pragma once

#include <cuda_runtime.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain::cuda {

struct Grid {
  dim3 blocks = {1, 1, 1};
  unsigned threads = 256;  // of a block
  std::size_t shared = 0;  // bytes of a block's shared memory
};

// Blocks of `threads` for `count` elements, each thread doing `each` at a time; no more than
// `most`, for loops that go on by the whole grid. At least one.
inline unsigned blocks_for(std::int64_t count, unsigned threads, unsigned each = 1,
                           unsigned most = 0x7fffffffu) {
  const std::int64_t of_block = std::int64_t{threads} * each;
  const std::int64_t wanted = std::max<std::int64_t>((count + of_block - 1) / of_block, 1);
  return static_cast<unsigned>(std::min<std::int64_t>(wanted, most));
}

// What a person calls the kernel.
template <class... Parameters>
std::string kernel_name(void (*kernel)(Parameters...)) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, reinterpret_cast<const void*>(kernel)) != cudaSuccess ||
      mangled == nullptr) {
    cudaGetLastError();
    return "of unknown name";
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  return plain ? plain.get() : mangled;
}

template <class... Parameters>
void check_launch(cudaError_t error, void (*kernel)(Parameters...), const Grid& grid) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that later calls do not find it again
  throw DeviceError("the kernel " + kernel_name(kernel) + " could not be started on " +
                    std::to_string(grid.blocks.x) + " x " + std::to_string(grid.blocks.y) + " x " +
                    std::to_string(grid.blocks.z) + " blocks of " + std::to_string(grid.threads) +
                    " threads with " + std::to_string(grid.shared) +
                    " bytes of shared memory: " + cudaGetErrorString(error));
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
            Arguments&&... arguments) {
  constexpr std::size_t unasked = 48 << 10;  // a kernel must be allowed to take more than this
  if (grid.shared > unasked) {
    check_launch(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(grid.shared)),
                 kernel, grid);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = dim3(grid.threads);
  config.dynamicSmemBytes = grid.shared;
  config.stream = stream;
  check_launch(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), kernel,
               grid);
}

}  // namespace ftrain::cuda
