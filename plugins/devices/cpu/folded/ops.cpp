#include "plugins/devices/cpu/folded/ops.h"

#include "ftrain/graph/opdef.h"

namespace ftrain::cpu {
namespace {

ops::Conv2d options_of(const Node& node) {
  return {node.attributes.integer("stride"), node.attributes.integer("padding"),
          node.attributes.integer("groups")};
}

Attributes attributes_of(const ops::Conv2d& options) {
  return {{"stride", options.stride}, {"padding", options.padding}, {"groups", options.groups}};
}

Shape convolved(const Shape& x, const Shape& weight, const ops::Conv2d& options) {
  const auto extent = [&](std::size_t axis) {
    return (x[axis] + 2 * options.padding - weight[axis]) / options.stride + 1;
  };
  return {x[0], weight[0], extent(2), extent(3)};
}

bool absent_or(const Node& node, std::size_t input, const Shape& shape) {
  return !node.inputs[input].valid() || node.input(input).shape == shape;
}

std::vector<TensorType> infer_norm(const Node& node) {
  for (std::size_t i = 1; i < 4; ++i) {
    require(node.input(i).shape == node.input(0).shape, node, "all must be [C]");
  }
  return {node.input(0), node.input(0)};
}

// Inputs: weight, factor before, factor behind.
std::vector<TensorType> infer_weight(const Node& node) {
  const Shape& w = node.input(0).shape;
  require(w.rank() == 4 && absent_or(node, 1, {w[1] * node.attributes.integer("groups")}) &&
              absent_or(node, 2, {w[0]}),
          node, "weight must be [K, C/groups, R, S] and the factors [C] and [K]");
  return {{node.input(0).dtype, w}};
}

// Inputs: weight, shift before, factor and shift behind. Attribute shape: that of x.
std::vector<TensorType> infer_bias(const Node& node) {
  const Shape& w = node.input(0).shape;
  const Shape x(node.attributes.integers("shape"));
  const ops::Conv2d options = options_of(node);
  require(w.rank() == 4 && x.rank() == 4 && w[1] * options.groups == x[1], node,
          "weight must be [K, C/groups, R, S] for an x of [N, C, H, W]");
  require(absent_or(node, 1, {x[1]}) && absent_or(node, 2, {w[0]}) && absent_or(node, 3, {w[0]}),
          node, "the shift before must be [C], what is behind [K]");
  if (!node.inputs[1].valid() || options.padding == 0) return {{node.input(0).dtype, Shape{w[0]}}};
  Shape by_position = convolved(x, w, options);
  by_position[0] = 1;
  return {{node.input(0).dtype, by_position}};
}

std::vector<TensorType> infer_convolution(const Node& node) {
  const Shape& x = node.input(0).shape;
  const Shape& w = node.input(1).shape;
  const ops::Conv2d options = options_of(node);
  require(x.rank() == 4 && w.rank() == 4 && w[1] * options.groups == x[1], node,
          "x must be [N, C, H, W] and weight [K, C/groups, R, S]");
  const Shape y = convolved(x, w, options);
  const Shape channels{y[1]}, by_position{1, y[1], y[2], y[3]};
  require(node.input(2).shape == channels || node.input(2).shape == by_position, node,
          "bias must be [K] or [1, K, H', W']");
  require(absent_or(node, 3, channels), node, "slope must be [K]");
  require(absent_or(node, 4, y), node, "other must have the result's shape");
  return {{node.input(0).dtype, y}};
}

constexpr ConvolutionRoles roles{.x = 0, .weight = 1, .y = ConvolutionRoles::result};

const OpDef norm_op{
    .name = "fold_norm", .infer = infer_norm, .operands = "mean variance gamma beta"};
const OpDef weight_op{
    .name = "fold_weight", .infer = infer_weight, .operands = "weight before behind"};
const OpDef bias_op{
    .name = "fold_bias", .infer = infer_bias, .operands = "weight before behind shift"};

}  // namespace

const OpDef conv2d_folded_op{.name = "conv2d_folded",
                             .infer = infer_convolution,
                             .operands = "x weight bias slope other",
                             .convolution = &roles,
                             .tunable = true};

FoldedNorm fold_norm(Value mean, Value variance, Value gamma, Value beta, double eps) {
  const Value factor = mean.graph().emit(norm_op, {mean, variance, gamma, beta}, {{"eps", eps}});
  return {factor, factor.sibling(1)};
}

Value fold_weight(Value weight, FoldedNorm before, FoldedNorm behind, std::int64_t groups) {
  return weight.graph().emit(weight_op, {weight, before.factor, behind.factor},
                             {{"groups", groups}});
}

Value fold_bias(Value weight, FoldedNorm before, FoldedNorm behind, const Shape& shape,
                const ops::Conv2d& options) {
  Attributes attributes = attributes_of(options);
  attributes.set("shape", shape.extents());
  return weight.graph().emit(bias_op, {weight, before.shift, behind.factor, behind.shift},
                             std::move(attributes));
}

Value conv2d_folded(Value x, Value weight, Value bias, Value slope, Value other,
                    const ops::Conv2d& options) {
  return x.graph().emit(conv2d_folded_op, {x, weight, bias, slope, other}, attributes_of(options));
}

}  // namespace ftrain::cpu
