#pragma once

#include <cuda_runtime_api.h>

namespace ftrain::cuda {

// Loads a kernel of this library onto the current GPU: an error when there is no code for it.
cudaError_t load_device_code();

}  // namespace ftrain::cuda
