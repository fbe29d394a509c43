// Whether a GPU takes this library's code at all, asked before anything else is.
#include <cuda_runtime.h>

#include "plugins/devices/cuda/runtime/device_code.h"

namespace ftrain::cuda {
namespace {

__global__ void nothing() {}

}  // namespace

cudaError_t load_device_code() {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, nothing);
}

}  // namespace ftrain::cuda
