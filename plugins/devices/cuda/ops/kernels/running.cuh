// Running statistics, which the step changes in place. Bound by their launch: a few numbers a
// channel, so that many norms share one.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/packet.cuh"

namespace ftrain::cuda {

// running <- (1 - momentum) running + momentum batch, where batch is the mean over the groups. A
// thread for each channel of each of the two statistics (the second: the variance, made unbiased).
struct RunningStatistics {
  float* running[2];
  const float* batch[2];
  std::int64_t groups, channels;
  double momentum, unbias;
};

// A launch's worth of norms.
struct RunningTable {
  static constexpr int most = 56;  // what fits a launch's parameters
  RunningStatistics of[most];
  int norms = 0;
  std::int64_t channels = 0;  // the most that one has
};

// blocks: x over channels, y the two statistics, z the norms.
static __global__ void update_running(RunningTable table, const float* ok) {
  const RunningStatistics& of = table.of[blockIdx.z];
  const std::int64_t c = thread_number();
  if (c >= of.channels || *ok == 0) return;
  const int k = static_cast<int>(blockIdx.y);
  double total = 0;
  for (std::int64_t g = 0; g < of.groups; ++g) total += of.batch[k][g * of.channels + c];
  const double value = total / static_cast<double>(of.groups) * (k == 1 ? of.unbias : 1);
  float& kept = of.running[k][c];
  kept = static_cast<float>((1 - of.momentum) * kept + of.momentum * value);
}

// state <- value, unless the step was bad.
static __global__ void assign(std::int64_t count, const float* value, const float* ok,
                              float* state) {
  if (*ok == 0) return;
  for (std::int64_t i = thread_number(); i < count; i += thread_count()) state[i] = value[i];
}

}  // namespace ftrain::cuda
