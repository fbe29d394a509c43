#include "core/ops/convolution.h"

#include "core/ops/sums.h"
#include "ftrain/graph/opdef.h"

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

const OpDef conv2d_op{.name = "conv2d", .infer = infer_conv2d, .vjp = vjp_conv2d};
const OpDef input_grad_op{.name = "conv2d_input_grad", .infer = infer_input_grad};
const OpDef weight_grad_op{.name = "conv2d_weight_grad", .infer = infer_weight_grad};

}  // namespace

namespace ops {

Value conv2d(Value x, Value weight, const Conv2d& options) {
  return x.graph().emit(conv2d_op, {x, weight}, attributes_of(options));
}
Value conv2d_input_grad(Value dy, Value weight, const Shape& shape, const Conv2d& options) {
  Attributes attributes = attributes_of(options);
  attributes.set("shape", shape.extents());
  return dy.graph().emit(input_grad_op, {dy, weight}, std::move(attributes));
}
Value conv2d_weight_grad(Value dy, Value x, const Shape& weight, const Conv2d& options) {
  Attributes attributes = attributes_of(options);
  attributes.set("shape", weight.extents());
  return dy.graph().emit(weight_grad_op, {dy, x}, std::move(attributes));
}

}  // namespace ops
}  // namespace ftrain
