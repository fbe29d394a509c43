// What the batch-norm functions are handed: one tile and its channels' coefficients.
#pragma once

#include <cstdint>

namespace ftrain::cpu {

// What a fused batch norm does with its result (forward), or what its gradient comes through or
// is added to (backward).
enum class After { nothing, prelu, add };

struct NormTile {
  const float* x = nullptr;
  float* y = nullptr;
  const float* mean = nullptr;    // [block], as the next three
  const float* factor = nullptr;  // gamma / sqrt(variance + eps)
  const float* beta = nullptr;
  const float* slope = nullptr;
  const float* other = nullptr;  // like x
  std::int64_t rows = 0, stride = 0, block = 0;
  After after = After::nothing;
  bool stream = false;
};

// dz = dy, or dy through the PReLU at z = (x - mean) factor + beta.
struct NormSumsTile {
  const float *dy = nullptr, *x = nullptr;
  const float *mean = nullptr, *factor = nullptr, *beta = nullptr, *slope = nullptr;
  // Added to: sum of dz, of dz (x - mean), and of dy z over z <= 0.
  double *sum = nullptr, *product = nullptr, *slope_sum = nullptr;
  std::int64_t rows = 0, stride = 0, block = 0;
  bool prelu = false;
};

// dx = dz factor - (x - mean) along - offset (+ other)
struct NormGradTile {
  const float *dy = nullptr, *x = nullptr, *other = nullptr;
  float* dx = nullptr;
  const float *mean = nullptr, *factor = nullptr, *beta = nullptr, *slope = nullptr;
  const float *along = nullptr, *offset = nullptr;
  std::int64_t rows = 0, stride = 0, block = 0;
  After after = After::nothing;
  bool stream = false;
};

}  // namespace ftrain::cpu
