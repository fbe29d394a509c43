#include "ftrain/ops/normalization.h"

#include "core/ops/sums.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

std::vector<TensorType> infer_moments(const Node& node) {
  const Shape& x = node.input(0).shape;
  const std::int64_t groups = node.attributes.integer("groups");
  require(x.rank() == 4 || x.rank() == 2, node, "x must be [N, C, H, W] or [N, C]");
  require(groups > 0 && x[0] % groups == 0, node, "the batch must be a multiple of the groups");
  const TensorType type{sum_type(node.input(0).dtype), Shape{groups, x[1]}};
  return {type, type};
}

void require_norm_operands(const Node& node, std::size_t x, std::size_t mean) {
  const Shape& shape = node.input(x).shape;
  const Shape& moments = node.input(mean).shape;
  require(shape.rank() == 4 || shape.rank() == 2, node, "x must be [N, C, H, W] or [N, C]");
  require(moments.rank() == 2 && moments[1] == shape[1] && shape[0] % moments[0] == 0, node,
          "the moments must be [groups, C]");
}

std::vector<TensorType> infer_batch_norm(const Node& node) {
  require_norm_operands(node, 0, 1);
  const Shape channels{node.input(0).shape[1]};
  require(node.input(3).shape == channels && node.input(4).shape == channels, node,
          "gamma and beta must be [C]");
  return {node.input(0)};
}

std::vector<TensorType> infer_fixed(const Node& node) {
  const Shape channels{node.input(0).shape[1]};
  for (std::size_t i = 1; i < 5; ++i) {
    require(node.input(i).shape == channels, node, "statistics, gamma and beta must be [C]");
  }
  return {node.input(0)};
}

std::vector<TensorType> infer_sums(const Node& node) {
  require_norm_operands(node, 1, 2);
  return {node.input(2), node.input(2)};
}

std::vector<TensorType> like_first(const Node& node) {
  return {node.input(0)};
}

std::vector<TensorType> infer_running(const Node& node) {
  require(node.input(0).shape == Shape{node.input(2).shape[1]}, node,
          "running statistics must be [C] and moments [groups, C]");
  return {};
}

std::vector<TensorType> infer_sum_groups(const Node& node) {
  return {{node.input(0).dtype, Shape{node.input(0).shape[1]}}};
}

std::vector<TensorType> infer_normalize(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() == 2, node, "x must be [N, D]");
  return {node.input(0), {node.input(0).dtype, Shape{x[0]}}};
}

Values vjp_batch_norm(Graph&, const Node& node, const Values& dy) {
  const Value x = node.inputs[0], gamma = node.inputs[3];
  const ops::Moments moments{node.inputs[1], node.inputs[2]};
  const ops::BatchNorm options{node.attributes.number("eps"), node.attributes.integer("ranks")};
  const ops::BatchNormSums local = ops::batch_norm_sums(dy[0], x, moments, options.eps);
  const Values all = ops::all_reduce_sum({local.gamma, local.beta}, options.ranks);
  const Value dx = ops::batch_norm_input_grad(dy[0], x, moments, gamma, {all[0], all[1]}, options);
  return {dx, {}, {}, ops::sum_groups(local.gamma), ops::sum_groups(local.beta)};
}

Values vjp_fixed(Graph&, const Node& node, const Values& dy) {
  const double eps = node.attributes.number("eps");
  const Value dx = ops::batch_norm_fixed_input_grad(dy[0], node.inputs[2], node.inputs[3], eps);
  // gamma and beta keep gradients too, by the sums over one group with the fixed moments.
  const std::int64_t channels = node.input(1).shape[0];
  const ops::Moments fixed{ops::reshape(node.inputs[1], {1, channels}),
                           ops::reshape(node.inputs[2], {1, channels})};
  const ops::BatchNormSums sums = ops::batch_norm_sums(dy[0], node.inputs[0], fixed, eps);
  return {dx, {}, {}, ops::sum_groups(sums.gamma), ops::sum_groups(sums.beta)};
}

// Few heads reach the features by way of the norms: d norm / d x = y.
Values vjp_normalize(Graph& graph, const Node& node, const Values& dy) {
  const Value y(&graph, node.index, 0);
  Value dx;
  if (dy[0].valid()) dx = ops::normalize_grad(dy[0], y, y.sibling(1));
  if (dy.size() < 2 || !dy[1].valid()) return {dx};
  const Value along = ops::scale_rows(y, dy[1]);
  return {dx.valid() ? ops::add(dx, along) : along};
}

}  // namespace

namespace ops::def {

const OpDef batch_moments{.name = "batch_moments",
                          .infer = infer_moments,
                          .operands = "x",
                          .narrowing = {Narrowing::When::follows, {0}},
                          .recompute = Recompute::never};
const OpDef batch_norm{.name = "batch_norm",
                       .infer = infer_batch_norm,
                       .vjp = vjp_batch_norm,
                       .operands = "x mean variance gamma beta",
                       .narrowing = {Narrowing::When::follows, {0}},
                       .recompute = Recompute::cheap};
const OpDef batch_norm_fixed{.name = "batch_norm_fixed",
                             .infer = infer_fixed,
                             .vjp = vjp_fixed,
                             .operands = "x mean variance gamma beta",
                             .narrowing = {Narrowing::When::follows, {0}}};
const OpDef batch_norm_sums{.name = "batch_norm_sums",
                            .infer = infer_sums,
                            .operands = "dy x mean variance",
                            .narrowing = {Narrowing::When::follows, {0, 1}},
                            .outlasts_recompute = [](const Node&) { return true; }};
const OpDef batch_norm_input_grad{.name = "batch_norm_input_grad",
                                  .infer = like_first,
                                  .operands = "dy x mean variance gamma dgamma dbeta",
                                  .narrowing = {Narrowing::When::follows, {0, 1}}};
const OpDef batch_norm_fixed_input_grad{.name = "batch_norm_fixed_input_grad",
                                        .infer = like_first,
                                        .operands = "dy variance gamma",
                                        .narrowing = {Narrowing::When::follows, {0}}};
const OpDef update_running{.name = "update_running",
                           .infer = infer_running,
                           .writes =
                               [](const Node&) {
                                 return std::vector<int>{0, 1};
                               },
                           .operands = "running_mean running_variance mean variance ok",
                           .concern = Concern::update};
// mean_i and var_i of `ranks` ranks -> var_i + (mean_i - mean)^2, the part of one rank.
const OpDef moment_spread{.name = "moment_spread",
                          .infer = like_first,
                          .operands = "variance mean mean_of_all",
                          .recompute = Recompute::never};
const OpDef sum_groups{.name = "sum_groups", .infer = infer_sum_groups, .operands = "x"};
const OpDef normalize{
    .name = "normalize", .infer = infer_normalize, .vjp = vjp_normalize, .operands = "x"};
const OpDef normalize_grad{.name = "normalize_grad", .infer = like_first, .operands = "dy y norms"};

}  // namespace ops::def

namespace ops {

Moments batch_moments(Value x, std::int64_t groups) {
  const Value mean = x.graph().emit(def::batch_moments, {x}, {{"groups", groups}});
  return {mean, mean.sibling(1)};
}

Value batch_norm(Value x, Moments moments, Value gamma, Value beta, const BatchNorm& options) {
  return x.graph().emit(def::batch_norm, {x, moments.mean, moments.variance, gamma, beta},
                        {{"eps", options.eps}, {"ranks", options.ranks}});
}

Value batch_norm_fixed(Value x, Value mean, Value variance, Value gamma, Value beta, double eps) {
  return x.graph().emit(def::batch_norm_fixed, {x, mean, variance, gamma, beta}, {{"eps", eps}});
}

BatchNormSums batch_norm_sums(Value dy, Value x, Moments moments, double eps) {
  const Value dgamma =
      x.graph().emit(def::batch_norm_sums, {dy, x, moments.mean, moments.variance}, {{"eps", eps}});
  return {dgamma, dgamma.sibling(1)};
}

Value batch_norm_input_grad(Value dy, Value x, Moments moments, Value gamma, BatchNormSums sums,
                            const BatchNorm& options) {
  return x.graph().emit(def::batch_norm_input_grad,
                        {dy, x, moments.mean, moments.variance, gamma, sums.gamma, sums.beta},
                        {{"eps", options.eps}, {"ranks", options.ranks}});
}

Value batch_norm_fixed_input_grad(Value dy, Value variance, Value gamma, double eps) {
  return dy.graph().emit(def::batch_norm_fixed_input_grad, {dy, variance, gamma}, {{"eps", eps}});
}

Moments combine_moments(Moments local, std::int64_t ranks) {
  if (ranks == 1) return local;
  const double share = 1.0 / static_cast<double>(ranks);
  const Value mean = scale(all_reduce_sum(local.mean, ranks), share);
  const Value spread = mean.graph().emit(def::moment_spread, {local.variance, local.mean, mean});
  return {mean, scale(all_reduce_sum(spread, ranks), share)};
}

void update_running(Value running_mean, Value running_variance, Moments moments, Value ok,
                    double momentum, std::int64_t count) {
  running_mean.graph().emit(def::update_running,
                            {running_mean, running_variance, moments.mean, moments.variance, ok},
                            {{"momentum", momentum}, {"count", count}});
}

Value sum_groups(Value x) {
  if (x.shape()[0] == 1) return reshape(x, {x.shape()[1]});
  return x.graph().emit(def::sum_groups, {x});
}

Normalized normalize(Value x) {
  const Value rows = x.graph().emit(def::normalize, {x});
  return {rows, rows.sibling(1)};
}

Value normalize_grad(Value dy, Value y, Value norms) {
  return dy.graph().emit(def::normalize_grad, {dy, y, norms});
}

}  // namespace ops
}  // namespace ftrain
