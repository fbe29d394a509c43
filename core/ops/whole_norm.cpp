#include "core/ops/whole_norm.h"

#include "core/ops/sums.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops/elementwise.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;
using Types = std::vector<TensorType>;

void require_image(const Node& node, std::size_t x) {
  const Shape& shape = node.input(x).shape;
  require(shape.rank() == 4 || shape.rank() == 2, node, "x must be [N, C, H, W] or [N, C]");
}

void require_channels(const Node& node, std::size_t x, std::size_t first, std::size_t last) {
  const Shape channels{node.input(x).shape[1]};
  for (std::size_t i = first; i < last; ++i) {
    require(node.input(i).shape == channels, node, "gamma, beta and slope must be [C]");
  }
}

void require_like(const Node& node, std::size_t x, std::size_t i) {
  require(node.input(i).shape == node.input(x).shape, node,
          "gradients and addends must have x's shape");
}

// Inputs: x, gamma, beta, then slope or other, then for two norms gamma and beta of the second.
template <bool prelu, bool add, bool pair>
Types infer_forward(const Node& node) {
  require_image(node, 0);
  require_channels(node, 0, 1, 3);
  if (prelu) require_channels(node, 0, 3, 4);
  if (add) require_like(node, 0, 3);
  if (pair) require_channels(node, 0, 4, 6);
  const TensorType& x = node.input(0);
  const std::int64_t groups = node.attributes.integer("groups");
  require(groups > 0 && x.shape[0] % groups == 0, node,
          "the batch must be a multiple of the groups");
  const TensorType moments{sum_type(x.dtype), Shape{groups, x.shape[1]}};
  Types types{x, moments, moments};
  if (pair) types.insert(types.end(), {x, moments, moments});
  return types;
}

// The operands of a norm from input `first` on: x, mean, variance, gamma (, beta, slope).
void require_operands(const Node& node, std::size_t first, bool prelu) {
  require_image(node, first);
  const Shape& shape = node.input(first).shape;
  for (const std::size_t i : {first + 1, first + 2}) {
    const Shape& moments = node.input(i).shape;
    require(moments.rank() == 2 && moments[1] == shape[1] && shape[0] % moments[0] == 0, node,
            "the moments must be [groups, C]");
  }
  require_channels(node, first, first + 3, first + (prelu ? 6 : 4));
}

// dx, dgamma, dbeta (, dslope) of the norm at `first`.
void add_gradients(Types& types, const Node& node, std::size_t first, bool prelu) {
  types.insert(types.end(), {node.input(first), node.input(first + 1), node.input(first + 1)});
  if (prelu) types.push_back(node.input(first + 5));
}

template <bool prelu, bool add>
Types infer_grad(const Node& node) {
  require_operands(node, 1, prelu);
  require_like(node, 1, 0);
  if (add) require_like(node, 1, 5);
  Types types;
  add_gradients(types, node, 1, prelu);
  return types;
}

// Inputs: a, b, operands.
template <bool prelu>
Types infer_sum_grad(const Node& node) {
  require_operands(node, 2, prelu);
  require_like(node, 2, 0);
  require_like(node, 2, 1);
  Types types{node.input(0)};
  add_gradients(types, node, 2, prelu);
  return types;
}

// Inputs: dz, operands of the outer norm, other, operands of the inner one.
template <bool prelu>
Types infer_pair_grad(const Node& node) {
  require_operands(node, 1, false);
  require_operands(node, 6, prelu);
  for (const std::size_t i : {0u, 5u, 6u}) require_like(node, 1, i);
  Types types;
  add_gradients(types, node, 1, false);
  add_gradients(types, node, 6, prelu);
  return types;
}

// ---- decompositions

Value second_norm(const Node& node, Value y, ops::Moments moments) {
  return ops::batch_norm(y, moments, node.inputs[4], node.inputs[5],
                         {node.attributes.number("second_eps"), 1});
}

enum class After { nothing, prelu, add };

template <After after, bool pair>
Values decompose_forward(Graph&, const Node& node) {
  const std::int64_t groups = node.attributes.integer("groups");
  const ops::Moments moments = ops::batch_moments(node.inputs[0], groups);
  Value y = ops::batch_norm(node.inputs[0], moments, node.inputs[1], node.inputs[2],
                            {node.attributes.number("eps"), 1});
  if (after == After::prelu) y = ops::prelu(y, node.inputs[3]);
  if (after == After::add) y = ops::add(y, node.inputs[3]);
  Values values{y, moments.mean, moments.variance};
  if (pair) {
    const ops::Moments second = ops::batch_moments(y, groups);
    values.insert(values.end(), {second_norm(node, y, second), second.mean, second.variance});
  }
  return values;
}

ops::NormOperands operands_of(const Node& node, std::size_t first, bool prelu, const char* eps) {
  ops::NormOperands norm{.x = node.inputs[first],
                         .moments = {node.inputs[first + 1], node.inputs[first + 2]},
                         .gamma = node.inputs[first + 3],
                         .beta = {},
                         .slope = {},
                         .eps = node.attributes.number(eps)};
  if (prelu) {
    norm.beta = node.inputs[first + 4];
    norm.slope = node.inputs[first + 5];
  }
  return norm;
}

void add_plain_gradients(Values& values, Value dy, const ops::NormOperands& norm) {
  Value dslope;
  if (norm.slope) {
    const Value z = ops::batch_norm(norm.x, norm.moments, norm.gamma, norm.beta, {norm.eps, 1});
    const ops::PReluGrad dz = ops::prelu_grad(dy, z, norm.slope);
    dy = dz.x;
    dslope = dz.slope;
  }
  const ops::BatchNormSums sums = ops::batch_norm_sums(dy, norm.x, norm.moments, norm.eps);
  const Value dx =
      ops::batch_norm_input_grad(dy, norm.x, norm.moments, norm.gamma, sums, {norm.eps, 1});
  values.insert(values.end(), {dx, sums.gamma, sums.beta});
  if (dslope) values.push_back(dslope);
}

template <bool prelu, bool add>
Values decompose_grad(Graph&, const Node& node) {
  Values values;
  add_plain_gradients(values, node.inputs[0], operands_of(node, 1, prelu, "eps"));
  if (add) values[0] = ops::add(values[0], node.inputs[5]);
  return values;
}

template <bool prelu>
Values decompose_sum_grad(Graph&, const Node& node) {
  Values values{ops::add(node.inputs[0], node.inputs[1])};
  add_plain_gradients(values, values[0], operands_of(node, 2, prelu, "eps"));
  return values;
}

template <bool prelu>
Values decompose_pair_grad(Graph&, const Node& node) {
  Values values;
  add_plain_gradients(values, node.inputs[0], operands_of(node, 1, false, "eps"));
  values[0] = ops::add(values[0], node.inputs[5]);
  add_plain_gradients(values, values[0], operands_of(node, 6, prelu, "inner_eps"));
  return values;
}

}  // namespace

namespace ops::def {

const OpDef batch_norm_whole{.name = "batch_norm_whole",
                             .infer = infer_forward<false, false, false>,
                             .decomposition = decompose_forward<After::nothing, false>};
const OpDef batch_norm_whole_prelu{.name = "batch_norm_whole_prelu",
                                   .infer = infer_forward<true, false, false>,
                                   .decomposition = decompose_forward<After::prelu, false>};
const OpDef batch_norm_whole_add{.name = "batch_norm_whole_add",
                                 .infer = infer_forward<false, true, false>,
                                 .decomposition = decompose_forward<After::add, false>};
const OpDef batch_norm_prelu_norm{.name = "batch_norm_prelu_norm",
                                  .infer = infer_forward<true, false, true>,
                                  .decomposition = decompose_forward<After::prelu, true>};
const OpDef batch_norm_add_norm{.name = "batch_norm_add_norm",
                                .infer = infer_forward<false, true, true>,
                                .decomposition = decompose_forward<After::add, true>};

const OpDef batch_norm_grad{.name = "batch_norm_grad",
                            .infer = infer_grad<false, false>,
                            .decomposition = decompose_grad<false, false>};
const OpDef batch_norm_prelu_grad{.name = "batch_norm_prelu_grad",
                                  .infer = infer_grad<true, false>,
                                  .decomposition = decompose_grad<true, false>};
const OpDef batch_norm_grad_add{.name = "batch_norm_grad_add",
                                .infer = infer_grad<false, true>,
                                .decomposition = decompose_grad<false, true>};
const OpDef add_batch_norm_grad{.name = "add_batch_norm_grad",
                                .infer = infer_sum_grad<false>,
                                .decomposition = decompose_sum_grad<false>};
const OpDef add_batch_norm_prelu_grad{.name = "add_batch_norm_prelu_grad",
                                      .infer = infer_sum_grad<true>,
                                      .decomposition = decompose_sum_grad<true>};
const OpDef batch_norm_grad_pair{.name = "batch_norm_grad_pair",
                                 .infer = infer_pair_grad<false>,
                                 .decomposition = decompose_pair_grad<false>};
const OpDef batch_norm_prelu_grad_pair{.name = "batch_norm_prelu_grad_pair",
                                       .infer = infer_pair_grad<true>,
                                       .decomposition = decompose_pair_grad<true>};

}  // namespace ops::def

namespace {

ops::WholeNorm emit_whole(const OpDef& op, Values inputs, const ops::WholeOptions& options) {
  const Value y = inputs[0].graph().emit(op, std::move(inputs),
                                         {{"eps", options.eps}, {"groups", options.groups}});
  return {y, {y.sibling(1), y.sibling(2)}};
}

ops::NormPair emit_pair(const OpDef& op, Values inputs, const ops::WholeOptions& options,
                        double second_eps) {
  const Value y = inputs[0].graph().emit(
      op, std::move(inputs),
      {{"eps", options.eps}, {"second_eps", second_eps}, {"groups", options.groups}});
  return {{y, {y.sibling(1), y.sibling(2)}}, {y.sibling(3), {y.sibling(4), y.sibling(5)}}};
}

void append(Values& inputs, const ops::NormOperands& norm) {
  inputs.insert(inputs.end(), {norm.x, norm.moments.mean, norm.moments.variance, norm.gamma});
  if (norm.slope) inputs.insert(inputs.end(), {norm.beta, norm.slope});
}

ops::NormGrad gradients_at(Value first, std::int32_t output, const ops::NormOperands& norm) {
  return {first.sibling(output),
          {first.sibling(output + 1), first.sibling(output + 2)},
          norm.slope ? first.sibling(output + 3) : Value()};
}

}  // namespace

namespace ops {

WholeNorm batch_norm_whole(Value x, Affine affine, const WholeOptions& options) {
  return emit_whole(def::batch_norm_whole, {x, affine.gamma, affine.beta}, options);
}

WholeNorm batch_norm_whole_prelu(Value x, Affine affine, Value slope, const WholeOptions& options) {
  return emit_whole(def::batch_norm_whole_prelu, {x, affine.gamma, affine.beta, slope}, options);
}

WholeNorm batch_norm_whole_add(Value x, Affine affine, Value other, const WholeOptions& options) {
  return emit_whole(def::batch_norm_whole_add, {x, affine.gamma, affine.beta, other}, options);
}

NormPair batch_norm_prelu_norm(Value x, Affine first, Value slope, Affine second,
                               const WholeOptions& options, double second_eps) {
  return emit_pair(def::batch_norm_prelu_norm,
                   {x, first.gamma, first.beta, slope, second.gamma, second.beta}, options,
                   second_eps);
}

NormPair batch_norm_add_norm(Value x, Affine first, Value other, Affine second,
                             const WholeOptions& options, double second_eps) {
  return emit_pair(def::batch_norm_add_norm,
                   {x, first.gamma, first.beta, other, second.gamma, second.beta}, options,
                   second_eps);
}

NormGrad batch_norm_grad(Value dy, const NormOperands& norm) {
  Values inputs{dy};
  append(inputs, norm);
  const Value dx = dy.graph().emit(norm.slope ? def::batch_norm_prelu_grad : def::batch_norm_grad,
                                   std::move(inputs), {{"eps", norm.eps}});
  return gradients_at(dx, 0, norm);
}

NormGrad batch_norm_grad_add(Value dy, const NormOperands& norm, Value other) {
  Values inputs{dy};
  append(inputs, norm);
  inputs.push_back(other);
  return gradients_at(
      dy.graph().emit(def::batch_norm_grad_add, std::move(inputs), {{"eps", norm.eps}}), 0, norm);
}

SumThenGrad add_batch_norm_grad(Value a, Value b, const NormOperands& norm) {
  Values inputs{a, b};
  append(inputs, norm);
  const Value d =
      a.graph().emit(norm.slope ? def::add_batch_norm_prelu_grad : def::add_batch_norm_grad,
                     std::move(inputs), {{"eps", norm.eps}});
  return {d, gradients_at(d, 1, norm)};
}

GradThenGrad batch_norm_grad_pair(Value dz, const NormOperands& outer, Value other,
                                  const NormOperands& inner) {
  Values inputs{dz};
  append(inputs, outer);
  inputs.push_back(other);
  append(inputs, inner);
  const Value d =
      dz.graph().emit(inner.slope ? def::batch_norm_prelu_grad_pair : def::batch_norm_grad_pair,
                      std::move(inputs), {{"eps", outer.eps}, {"inner_eps", inner.eps}});
  return {gradients_at(d, 0, outer), gradients_at(d, 3, inner)};
}

}  // namespace ops
}  // namespace ftrain
