// Statistics that the step changes in place. Bound by their launch: a few numbers a channel.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/kernels/packet.cuh"

namespace ftrain::cuda {

// running <- (1 - momentum) running + momentum batch, where batch is the mean over the groups. A
// thread for each channel of each of the two statistics (y = 1: the variance, made unbiased).
struct RunningStatistics {
  float* running[2];
  const float* batch[2];
  std::int64_t groups, channels;
  double momentum, unbias;
};

static __global__ void update_running(RunningStatistics of, const float* ok) {
  const std::int64_t c = thread_number();
  if (c >= of.channels || *ok == 0) return;
  const int k = static_cast<int>(blockIdx.y);
  double total = 0;
  for (std::int64_t g = 0; g < of.groups; ++g) total += of.batch[k][g * of.channels + c];
  const double value = total / static_cast<double>(of.groups) * (k == 1 ? of.unbias : 1);
  float& kept = of.running[k][c];
  kept = static_cast<float>((1 - of.momentum) * kept + of.momentum * value);
}

}  // namespace ftrain::cuda
