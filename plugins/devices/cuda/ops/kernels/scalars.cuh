// The step's guards: a few numbers, done by one thread or one warp. Bound by their launch.
#pragma once

#include <cfloat>
#include <cmath>

#include "plugins/devices/cuda/ops/kernels/warp.cuh"

namespace ftrain::cuda {

static __global__ void store_constant(float value, float* y) {
  *y = value;
}

// The scale never becomes infinite nor 0: neither would ever leave again.
struct LossScaleRule {
  float growth, backoff, interval;
};

static __global__ void update_loss_scale(LossScaleRule rule, float* scale, float* steps,
                                         const float* ok) {
  if (*ok == 0) {
    const float less = *scale * rule.backoff;
    if (less >= FLT_MIN) *scale = less;
    *steps = 0;
    return;
  }
  const float good = *steps + 1;
  if (good < rule.interval) {
    *steps = good;
    return;
  }
  const float grown = *scale * rule.growth;
  if (isfinite(grown)) *scale = grown;
  *steps = 0;
}

static __global__ void clip_coefficient(double limit, const float* squared_norm, float* y) {
  const double norm = sqrt(static_cast<double>(*squared_norm));
  const double coefficient = limit / (norm + 1e-6);
  *y = static_cast<float>(coefficient < 1 ? coefficient : 1);
}

struct ScalarTable {
  static constexpr int most = 256;
  const float* at[most];
  int count = 0;
};

// One warp. `goes_on`: y already holds the word on earlier tables.
static __global__ void all_finite(ScalarTable scalars, bool goes_on, float* y) {
  bool finite = !goes_on || *y != 0;
  for (int i = static_cast<int>(threadIdx.x); i < scalars.count; i += warp_size) {
    finite = finite && isfinite(*scalars.at[i]);
  }
  const bool all = __all_sync(all_lanes, finite) != 0;
  if (threadIdx.x == 0) *y = all ? 1.0f : 0.0f;
}

}  // namespace ftrain::cuda
