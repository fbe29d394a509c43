// The Highway functions of the batch-norm family: what each is handed and how it is found.
//
// Each works on one tile: rows of one channel block, of one sample or of a run of samples. The
// activations are f32 or, with `bf16`, bf16; coefficients and sums are per lane of the block.
#pragma once

#include <cstdint>
#include <string>

namespace ftrain::cpu {

// What a fused batch norm does with its result (forward), or what its gradient comes through or
// is added to (backward).
enum class After { nothing, prelu, add };

struct TileShape {
  std::int64_t rows = 0, stride = 0, block = 0;
  bool bf16 = false;
};

struct MomentsTile {
  TileShape shape;
  const void* x = nullptr;
  double *sum = nullptr, *square = nullptr;  // [block], added to
};

// y = (x - mean) factor + beta, then `after`.
struct NormTile {
  TileShape shape;
  const void *x = nullptr, *other = nullptr;
  void* y = nullptr;
  const float* mean = nullptr;    // [block], as the next three
  const float* factor = nullptr;  // gamma / sqrt(variance + eps)
  const float *beta = nullptr, *slope = nullptr;
  After after = After::nothing;
  bool stream = false;                       // write y past the caches
  double *sum = nullptr, *square = nullptr;  // of what y holds, added to: normalize_and_sum alone
};

// dz = dy, or dy through the PReLU at z = (x - mean) factor + beta.
struct NormSumsTile {
  TileShape shape;
  const void *dy = nullptr, *x = nullptr;
  const float *mean = nullptr, *factor = nullptr, *beta = nullptr, *slope = nullptr;
  // Added to: sum of dz, of dz (x - mean), and of dy z over z <= 0.
  double *sum = nullptr, *product = nullptr, *slope_sum = nullptr;
  bool prelu = false;
};

// dx = dz factor - (x - mean) along - offset (+ other)
struct NormGradTile {
  TileShape shape;
  const void *dy = nullptr, *x = nullptr, *other = nullptr;
  void* dx = nullptr;
  const float *mean = nullptr, *factor = nullptr, *beta = nullptr, *slope = nullptr;
  const float *along = nullptr, *offset = nullptr;
  After after = After::nothing;
  bool stream = false;
};

// d = dy + other, or with `through_norm` the gradient `grad` says; then `sums`, whose dy is d.
struct GradAndSumsTile {
  NormGradTile grad;  // not streamed; its dx is d
  NormSumsTile sums;
  bool through_norm = false;
};

struct NormForward {
  void (*moments)(const MomentsTile&);
  void (*normalize)(const NormTile&);
  void (*normalize_and_sum)(const NormTile&);  // with a PReLU or an addition
};
struct NormBackward {
  void (*sums)(const NormSumsTile&);
  void (*gradient)(const NormGradTile&);
  void (*gradient_and_sums)(const GradAndSumsTile&);
};
NormForward norm_forward(const std::string& isa);
NormBackward norm_backward(const std::string& isa);

}  // namespace ftrain::cpu
