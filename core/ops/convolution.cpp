#include "ftrain/ops/convolution.h"

#include "core/ops/sums.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

ops::Conv2d options_of(const Node& node) {
  return {node.attributes.integer("stride"), node.attributes.integer("padding"),
          node.attributes.integer("groups")};
}

Attributes attributes_of(const ops::Conv2d& options) {
  return {{"stride", options.stride}, {"padding", options.padding}, {"groups", options.groups}};
}

std::vector<TensorType> infer_conv2d(const Node& node) {
  const Shape& x = node.input(0).shape;
  const Shape& w = node.input(1).shape;
  const auto [stride, padding, groups] = options_of(node);
  require(x.rank() == 4 && w.rank() == 4, node, "x must be [N, C, H, W] and weight [K, C/g, R, S]");
  require(stride > 0 && padding >= 0 && groups > 0, node, "stride and groups must be positive");
  require(x[1] % groups == 0 && w[0] % groups == 0 && w[1] == x[1] / groups, node,
          "weight must be [K, C/groups, R, S] with C and K multiples of groups");
  require(x[2] + 2 * padding >= w[2] && x[3] + 2 * padding >= w[3], node,
          "the image must be at least as large as the kernel");
  const std::int64_t height = (x[2] + 2 * padding - w[2]) / stride + 1;
  const std::int64_t width = (x[3] + 2 * padding - w[3]) / stride + 1;
  return {{node.input(0).dtype, Shape{x[0], w[0], height, width}}};
}

// The weight may have more digits than the activations.
std::vector<TensorType> infer_input_grad(const Node& node) {
  return {{node.input(0).dtype, Shape(node.attributes.integers("shape"))}};
}

std::vector<TensorType> infer_weight_grad(const Node& node) {
  return {{sum_type(node.input(0).dtype), Shape(node.attributes.integers("shape"))}};
}

Values vjp_conv2d(Graph&, const Node& node, const Values& dy) {
  const Value x = node.inputs[0], weight = node.inputs[1];
  const ops::Conv2d options = options_of(node);
  return {ops::conv2d_input_grad(dy[0], weight, x.shape(), options),
          ops::conv2d_weight_grad(dy[0], x, weight.shape(), options)};
}

constexpr ConvolutionRoles forward_roles{.x = 0, .weight = 1, .y = ConvolutionRoles::result};
constexpr ConvolutionRoles input_grad_roles{.x = ConvolutionRoles::result, .weight = 1, .y = 0};
constexpr ConvolutionRoles weight_grad_roles{.x = 1, .weight = ConvolutionRoles::result, .y = 0};

// A weight [K, C/g, R, S] makes C/g R S products of each element of y.
OpCost cost_of_convolution(const Node& node) {
  const ConvolutionTypes types = convolution_types(node);
  const auto elements = [](const TensorType& type) {
    return static_cast<double>(type.shape.elements());
  };
  return {.flops = 2 * elements(types.y) * elements(types.weight) /
                   static_cast<double>(types.weight.shape[0]),
          .bytes = static_cast<double>(types.x.bytes() + types.weight.bytes() + types.y.bytes())};
}

// 1x1 and depthwise ones take no longer than a pass over memory.
bool is_spatial(const Node& node) {
  const std::vector<std::int64_t> shape = node.attributes.integers("shape");
  return node.attributes.integer("groups") == 1 && shape[2] * shape[3] > 1;
}

}  // namespace

namespace ops::def {

const OpDef conv2d{.name = "conv2d",
                   .infer = infer_conv2d,
                   .vjp = vjp_conv2d,
                   .operands = "x weight",
                   .narrowing = {Narrowing::When::begins, {0}},
                   .convolution = &forward_roles,
                   .tunable = true,
                   .cost = cost_of_convolution};
const OpDef conv2d_input_grad{.name = "conv2d_input_grad",
                              .infer = infer_input_grad,
                              .operands = "dy weight",
                              .narrowing = {Narrowing::When::begins, {0}},
                              .convolution = &input_grad_roles,
                              .tunable = true,
                              .cost = cost_of_convolution};
const OpDef conv2d_weight_grad{.name = "conv2d_weight_grad",
                               .infer = infer_weight_grad,
                               .operands = "dy x",
                               .narrowing = {Narrowing::When::begins, {0, 1}},
                               .outlasts_recompute = is_spatial,
                               .convolution = &weight_grad_roles,
                               .tunable = true,
                               .cost = cost_of_convolution};

}  // namespace ops::def

ConvolutionTypes convolution_types(const Node& node) {
  const ConvolutionRoles& roles = *node.op->convolution;
  const auto type = [&](int operand) {
    return operand == ConvolutionRoles::result ? node.outputs[0]
                                               : node.input(static_cast<std::size_t>(operand));
  };
  return {type(roles.x),
          type(roles.weight),
          type(roles.y),
          node.attributes.integer("stride"),
          node.attributes.integer("padding"),
          node.attributes.integer("groups")};
}

namespace ops {

Value conv2d(Value x, Value weight, const Conv2d& options) {
  return x.graph().emit(def::conv2d, {x, weight}, attributes_of(options));
}
Value conv2d_input_grad(Value dy, Value weight, const Shape& shape, const Conv2d& options) {
  Attributes attributes = attributes_of(options);
  attributes.set("shape", shape.extents());
  return dy.graph().emit(def::conv2d_input_grad, {dy, weight}, std::move(attributes));
}
Value conv2d_weight_grad(Value dy, Value x, const Shape& weight, const Conv2d& options) {
  Attributes attributes = attributes_of(options);
  attributes.set("shape", weight.extents());
  return dy.graph().emit(def::conv2d_weight_grad, {dy, x}, std::move(attributes));
}

}  // namespace ops
}  // namespace ftrain
