// In the place of cudnn/ where the build found no cuDNN.
#include "plugins/devices/cuda/cudnn/cudnn.h"

#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {

std::unique_ptr<Cudnn> open_cudnn(const CudnnOptions&) {
  return nullptr;
}

void add_cudnn_kernels(KernelList&) {}

}  // namespace ftrain::cuda
