// The ops that authors call.
//
// Images are N, C, H, W; everything is floating (f32, or f64 for gradient checks) unless said.
// Every function checks its operands (ShapeError) and emits one node or a few. The gradient ops
// that only vjps emit stand in opdef/*.h beside their definitions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain::ops {

// ---- element by element
FTRAIN_API Value add(Value a, Value b);  // equal shapes
FTRAIN_API Value mul(Value a, Value b);  // equal shapes
FTRAIN_API Value scale(Value x, double factor);
FTRAIN_API Value scale_by(Value x, Value factor);  // factor: a scalar
FTRAIN_API Value relu(Value x);
// y = max(0, x) + slope[c] min(0, x); slope: [C]. He et al., "Delving Deep into Rectifiers" (2015).
FTRAIN_API Value prelu(Value x, Value slope);
FTRAIN_API Value cast(Value x, DType to);
// Inverted dropout: zero with probability p, else x / (1 - p). The mask is Philox(seed, step,
// global element): `first_sample` is the global index of row 0 of this rank's batch in the step.
FTRAIN_API Value dropout(Value x, double p, Value step, std::uint64_t seed,
                         std::int64_t first_sample);

// ---- convolutions and products
struct Conv2d {
  std::int64_t stride = 1, padding = 0, groups = 1;
};
// x [N, C, H, W], weight [K, C/groups, R, S] -> [N, K, (H + 2p - R)/stride + 1, ...]. No bias.
FTRAIN_API Value conv2d(Value x, Value weight, const Conv2d& options = {});
// op(a) op(b) of matrices [M, K], [K, N] after the transpositions.
FTRAIN_API Value matmul(Value a, Value b, bool transpose_a = false, bool transpose_b = false);
// x [N, C], bias [C]
FTRAIN_API Value add_bias(Value x, Value bias);
// x [N, in], weight [out, in], bias [out] or invalid -> [N, out]
FTRAIN_API Value linear(Value x, Value weight, Value bias = {});

// ---- shapes
FTRAIN_API Value reshape(Value x, Shape shape);  // the same elements in row-major order
FTRAIN_API Value flatten(Value x);               // [N, ...] -> [N, rest]
// Rows [first, first + count) of the first dimension, copied. No gradient is taken: it cuts inputs.
FTRAIN_API Value slice_rows(Value x, std::int64_t first, std::int64_t count);

// ---- pooling and reductions
FTRAIN_API Value global_average_pool(Value x);  // [N, C, H, W] -> [N, C]
FTRAIN_API Value sum(Value x);                  // -> scalar
FTRAIN_API Value mean(Value x);                 // -> scalar
FTRAIN_API Value sum_rows(Value x);             // [N, C] -> [C]
// The sum of squares over all tensors -> scalar, accumulated in double.
FTRAIN_API Value squared_norm(std::vector<Value> tensors);

// ---- normalisation
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
// x / max(|x|, 1e-12) by rows of [N, D], and the norms [N]. Outputs 0 and 1; the gradient of the
// norms is not taken.
struct Normalized {
  Value rows, norms;
};
FTRAIN_API Normalized normalize(Value x);

// ---- images
// u8 [N, H, W, 3] -> f32 [N, 3, H, W]: (x - mean) * scale, each sample flipped left to right with
// probability `flip` by Philox(seed, step, first_sample + n).
struct ImageNormalize {
  double mean = 127.5, scale = 1 / 127.5, flip = 0;
  std::uint64_t seed = 0;
  std::int64_t first_sample = 0;
};
FTRAIN_API Value image_normalize(Value image, Value step, const ImageNormalize& options);

// ---- between ranks; at one rank each is the identity and emits nothing
FTRAIN_API Value all_reduce_sum(Value x, std::int64_t ranks);
FTRAIN_API std::vector<Value> all_reduce_sum(std::vector<Value> tensors, std::int64_t ranks);
// [N, ...] -> [ranks N, ...]. `wire`: what x travels in, bf16 or its own type; the gradient is
// summed in x's own.
FTRAIN_API Value all_gather(Value x, std::int64_t ranks, std::optional<DType> wire = {});
FTRAIN_API Value reduce_scatter(Value x, std::int64_t ranks);  // [ranks N, ...] -> [N, ...], summed
FTRAIN_API Value broadcast(Value x, std::int64_t root, std::int64_t ranks);

// ---- the step's guards (scalars)
// min(1, limit / (sqrt(squared_norm) + 1e-6)), as torch's clip_grad_norm_.
FTRAIN_API Value clip_coefficient(Value squared_norm, double limit);
// 1 when every element of every scalar given is finite, else 0.
FTRAIN_API Value all_finite(std::vector<Value> scalars);
FTRAIN_API Value sqrt(Value x);
FTRAIN_API Value reciprocal(Value x);
// Writes scale and steps (scalar f32 states): after a bad step (ok = 0) scale *= backoff and
// steps = 0; after `interval` good ones in a row scale *= growth. As torch.amp.GradScaler.
struct LossScale {
  double growth = 2, backoff = 0.5;
  std::int64_t interval = 2000;
};
FTRAIN_API void update_loss_scale(Value scale, Value steps, Value ok, const LossScale& options);
// A constant scalar of f32.
FTRAIN_API Value constant(Graph& graph, double value);

// ---- the class-center step (core/graph/opdef/class_center.h says what each op computes)
struct ClassCenters {
  std::shared_ptr<const Payload> margin;  // a Margin, see ftrain/model/margin_head.h
  std::int64_t first_class = 0;           // the global number of weight's row 0
  double gradient_scale = 1;              // 1 / global batch
  // The first walk keeps its cosines for the second, which otherwise makes them again.
  bool keep_cosines = false;
};
// Cosines (or raw products) of each row with its own class where `weight` holds it, else 0:
// features [B, D], labels i64 [B], weight [C, D] -> [B]. Summed over ranks it is every row's.
FTRAIN_API Value target_cosine(Value features, Value labels, Value weight, const ClassCenters&);
// One walk over the tiles: -> stats [B, 2] = online (max, sum exp) of the logits of these classes,
// inverse norms [C] (or [capacity] with `rows`). norms [B]: the features' lengths.
// rows: i32 [capacity], the sampled rows of weight in ascending order, -1 in unused slots at the
// end; invalid: all rows.
// cosines [C or capacity, B] (raw products where the margin wants them), only with keep_cosines.
struct ClassStats {
  Value stats, inverse_norms, cosines;
};
FTRAIN_API ClassStats class_center_forward(Value features, Value norms, Value labels, Value weight,
                                           Value target, Value rows, const ClassCenters&);
// stats of all ranks [ranks, B, 2], target cosines [B] -> loss (scalar: the mean over B) and the
// log of each row's softmax denominator [B].
struct MarginLoss {
  Value loss, log_sum;
};
FTRAIN_API MarginLoss margin_loss(Value stats, Value norms, Value target, const ClassCenters&);
// The second walk: gradient of the features (this rank's classes' share) [B, D] and of the weight,
// dense: [C, D], or [capacity, D] of the walked rows with `rows` (0 in unused slots). `stats` is
// what the first walk gave, with its cosines or without. `earlier`: a gradient of the weight, as
// made here of earlier samples, that this one's is added to.
struct ClassGradients {
  Value features, weight;
};
FTRAIN_API ClassGradients class_center_backward(Value features, Value norms, Value labels,
                                                Value weight, Value target, Value log_sum,
                                                const ClassStats& stats, Value rows,
                                                const ClassCenters&, Value earlier = {});
// The second walk with the optimizer's update on each tile, in place; no gradient of the weight
// ever exists. Writes weight and slots. `update`: an Update, see ftrain/model/optimizer.h.
// `all_rows`: rows that were not sampled are updated with gradient 0 (dense momentum and decay).
struct RowUpdate {
  std::shared_ptr<const Payload> update;
  double rate_factor = 1, decay = 0;
  bool all_rows = false;
  // A gradient of the weight from earlier samples of the step that is added to this one's before
  // the update: [C, D] (or [capacity, D] with `rows`), as class_center_backward gives it.
  Value earlier = {};
  // Where the weight is bf16: results are rounded to it stochastically, by Philox(seed, step, row,
  // column) of the global row, so that small updates are not lost. step: i64 scalar.
  Value step = {};
  std::uint64_t seed = 0;
};
FTRAIN_API Value class_center_update(Value features, Value norms, Value labels, Value weight,
                                     Value target, Value log_sum, const ClassStats& stats,
                                     Value rows, std::vector<Value> slots, Value rate, Value ok,
                                     const ClassCenters&, const RowUpdate&);
// Partial FC: local rows of weight chosen in this step: those of the batch's labels, and those
// whose Philox(seed, step, global class) falls under `sample_rate`. -> i32 [capacity], ascending,
// then -1.
struct SampleClasses {
  std::int64_t first_class = 0, local_classes = 0, capacity = 0;
  double sample_rate = 1;
  std::uint64_t seed = 0;
};
FTRAIN_API Value sample_classes(Value labels, Value step, const SampleClasses&);

// ---- updates of dense parameters
// Writes parameter and slots by `update` (ftrain/model/optimizer.h). coefficient: scalar that the
// gradient is multiplied with (clipping); invalid: 1. Nothing changes when ok (scalar) is 0.
FTRAIN_API void optimizer_update(Value parameter, std::vector<Value> slots, Value gradient,
                                 Value rate, Value coefficient, Value ok,
                                 std::shared_ptr<const Payload> update, double rate_factor,
                                 double decay);

}  // namespace ftrain::ops
