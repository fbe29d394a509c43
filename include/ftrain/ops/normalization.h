// Batch normalisation and row normalisation, and their gradients.
//
// Images are N, C, H, W; everything is floating (f32, or f64 for gradient checks) unless said.
//
// With x^ = (x - mean) * inv, inv = 1 / sqrt(variance + eps), M = samples of a group times H W
// times ranks:
//   dbeta[c]  = sum dy          dgamma[c] = sum dy x^
//   dx = gamma inv (dy - dbeta / M - x^ dgamma / M)
// where the two sums in dx are over one group (all ranks together when the statistics are global).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

// Batch moments over N, H, W (or N for [N, C]) within each of `groups` equal runs of samples:
// mean [groups, C] and biased variance [groups, C]. Outputs 0 and 1.
struct Moments {
  Value mean, variance;
};
FTRAIN_API Moments batch_moments(Value x, std::int64_t groups = 1);
// gamma (x - mean) / sqrt(variance + eps) + beta, with mean and variance [groups, C] *of x itself*
// (over `ranks` ranks): the gradient flows through them. Ioffe and Szegedy (2015).
struct BatchNorm {
  double eps = 1e-5;
  std::int64_t ranks = 1;  // the moments are over the batches of this many ranks
};
FTRAIN_API Value batch_norm(Value x, Moments moments, Value gamma, Value beta,
                            const BatchNorm& options = {});
// The same with constant statistics [C]: evaluation.
FTRAIN_API Value batch_norm_fixed(Value x, Value mean, Value variance, Value gamma, Value beta,
                                  double eps);
// Moments of the samples of all ranks, from those of each: two all-reduces of [groups, C].
FTRAIN_API Moments combine_moments(Moments local, std::int64_t ranks);
// Writes: running_mean, running_variance <- (1 - momentum) old + momentum batch, where the batch's
// value is the mean over groups and its variance is unbiased by `count` samples a group. Keeps the
// old values when `ok` (scalar f32) is 0.
FTRAIN_API void update_running(Value running_mean, Value running_variance, Moments moments,
                               Value ok, double momentum, std::int64_t count);
// x / max(|x|, 1e-12) by rows of [N, D], and the norms [N]. Outputs 0 and 1.
struct Normalized {
  Value rows, norms;
};
FTRAIN_API Normalized normalize(Value x);

// ---- gradients
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

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef batch_moments, batch_norm, batch_norm_fixed, batch_norm_sums,
    batch_norm_input_grad, batch_norm_fixed_input_grad, update_running, moment_spread, sum_groups,
    normalize, normalize_grad;
}  // namespace def

}  // namespace ftrain::ops
