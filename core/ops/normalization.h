// Gradient ops of batch normalisation and row normalisation.
//
// With x^ = (x - mean) * inv, inv = 1 / sqrt(variance + eps), M = samples of a group times H W
// times ranks:
//   dbeta[c]  = sum dy          dgamma[c] = sum dy x^
//   dx = gamma inv (dy - dbeta / M - x^ dgamma / M)
// where the two sums in dx are over one group (all ranks together when the statistics are global).
#pragma once

#include "ftrain/ops.h"

namespace ftrain::ops {

// Per group: dgamma [groups, C], dbeta [groups, C], over this rank's samples.
struct BatchNormSums {
  Value gamma, beta;
};
FTRAIN_API BatchNormSums batch_norm_sums(Value dy, Value x, Moments moments, double eps);
// `sums` are over all ranks of the statistics.
FTRAIN_API Value batch_norm_input_grad(Value dy, Value x, Moments moments, Value gamma,
                                       BatchNormSums sums, const BatchNorm& options);
// dx = dy gamma inv with constant statistics.
FTRAIN_API Value batch_norm_fixed_input_grad(Value dy, Value variance, Value gamma, double eps);
// [groups, C] -> [C]
FTRAIN_API Value sum_groups(Value x);
// (dy - y (y . dy)) / max(norm, 1e-12) by rows.
FTRAIN_API Value normalize_grad(Value dy, Value y, Value norms);

}  // namespace ftrain::ops
