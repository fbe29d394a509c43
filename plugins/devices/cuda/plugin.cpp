#include "ftrain/plugin.h"

#include "plugins/devices/cuda/device/device.h"

FTRAIN_PLUGIN(cuda, registry) {
  registry.add<ftrain::Device, ftrain::cuda::CudaDevice>(
      "cuda", "NVIDIA GPUs from sm_80 on: own kernels, cuDNN and cuBLASLt, the step captured");
}
