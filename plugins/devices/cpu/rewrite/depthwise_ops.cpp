#include "plugins/devices/cpu/rewrite/depthwise_ops.h"

#include "core/ops/sums.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain::cpu {
namespace {

using Values = std::vector<Value>;
using Types = std::vector<TensorType>;

ops::Conv2d convolution_of(const Node& node) {
  return {node.attributes.integer("stride"), node.attributes.integer("padding"),
          node.attributes.integer("groups")};
}

Attributes attributes_of(const NormAndSlope& first, const NormAndSlope& second,
                         const ops::Conv2d& options) {
  return {{"eps", first.eps},
          {"second_eps", second.eps},
          {"stride", options.stride},
          {"padding", options.padding},
          {"groups", options.groups}};
}

void require_channels(const Node& node, std::int64_t channels,
                      std::initializer_list<std::size_t> inputs) {
  for (const std::size_t i : inputs) {
    require(node.input(i).shape == Shape{channels}, node, "gamma, beta and slope must be [C]");
  }
}

// Inputs: x, gamma, beta, slope, weight, gamma, beta, slope.
Types infer_block(const Node& node) {
  const TensorType& x = node.input(0);
  const Shape& weight = node.input(4).shape;
  require(x.shape.rank() == 4 && weight.rank() == 4, node,
          "x must be [N, C, H, W] and weight [K, C/g, R, S]");
  const auto [stride, padding, groups] = convolution_of(node);
  require(stride > 0 && groups > 0 && weight[1] * groups == x.shape[1], node,
          "weight must be [K, C/groups, R, S]");
  require_channels(node, x.shape[1], {1, 2, 3});
  require_channels(node, weight[0], {5, 6, 7});
  TensorType z = x;
  z.shape = {x.shape[0], weight[0], (x.shape[2] + 2 * padding - weight[2]) / stride + 1,
             (x.shape[3] + 2 * padding - weight[3]) / stride + 1};
  const TensorType first{sum_type(x.dtype), Shape{1, x.shape[1]}};
  const TensorType second{sum_type(x.dtype), Shape{1, weight[0]}};
  return {z, first, first, z, second, second};
}

// Inputs: dy, x, mean, variance, gamma, beta, slope, weight, z, mean, variance, gamma, beta, slope.
Types infer_grad(const Node& node) {
  require(node.input(0).shape == node.input(8).shape, node, "dy and z must have one shape");
  for (const std::size_t x : {1u, 8u}) {
    const std::int64_t channels = node.input(x).shape[1];
    for (const std::size_t i : {x + 1, x + 2}) {
      require(node.input(i).shape == Shape{1, channels}, node, "the moments must be [1, C]");
    }
  }
  require_channels(node, node.input(1).shape[1], {4, 5, 6});
  require_channels(node, node.input(8).shape[1], {11, 12, 13});
  return {node.input(1), node.input(2), node.input(2),  node.input(6),
          node.input(7), node.input(9), node.input(10), node.input(13)};
}

Value norm_at(const Node& node, std::size_t x, const char* eps) {
  return ops::batch_norm(node.inputs[x], {node.inputs[x + 1], node.inputs[x + 2]},
                         node.inputs[x + 3], node.inputs[x + 4], {node.attributes.number(eps), 1});
}

Values decompose_block(Graph&, const Node& node) {
  const Values& in = node.inputs;
  const ops::Moments first = ops::batch_moments(in[0], 1);
  const Value normed =
      ops::batch_norm(in[0], first, in[1], in[2], {node.attributes.number("eps"), 1});
  const Value z = ops::conv2d(ops::prelu(normed, in[3]), in[4], convolution_of(node));
  const ops::Moments second = ops::batch_moments(z, 1);
  const Value again =
      ops::batch_norm(z, second, in[5], in[6], {node.attributes.number("second_eps"), 1});
  return {ops::prelu(again, in[7]), first.mean, first.variance, z, second.mean, second.variance};
}

// The gradient through norm and PReLU at input `x`: dx, dgamma, dbeta, dslope.
Values grad_at(const Node& node, Value dy, Value normed, std::size_t x, const char* eps) {
  const ops::Moments moments{node.inputs[x + 1], node.inputs[x + 2]};
  const double epsilon = node.attributes.number(eps);
  const ops::PReluGrad dz = ops::prelu_grad(dy, normed, node.inputs[x + 5]);
  const ops::BatchNormSums sums = ops::batch_norm_sums(dz.x, node.inputs[x], moments, epsilon);
  const Value dx = ops::batch_norm_input_grad(dz.x, node.inputs[x], moments, node.inputs[x + 3],
                                              sums, {epsilon, 1});
  return {dx, sums.gamma, sums.beta, dz.slope};
}

Values decompose_grad(Graph&, const Node& node) {
  const Values& in = node.inputs;
  const ops::Conv2d options = convolution_of(node);
  const Value normed = norm_at(node, 1, "eps"), again = norm_at(node, 8, "second_eps");
  const Values second = grad_at(node, in[0], again, 8, "second_eps");
  const Value da = ops::conv2d_input_grad(second[0], in[7], in[1].shape(), options);
  const Value dweight =
      ops::conv2d_weight_grad(second[0], ops::prelu(normed, in[6]), in[7].shape(), options);
  const Values first = grad_at(node, da, normed, 1, "eps");
  return {first[0], first[1], first[2], first[3], dweight, second[1], second[2], second[3]};
}

const OpDef block_op{
    .name = "depthwise_block", .infer = infer_block, .decomposition = decompose_block};
const OpDef grad_op{
    .name = "depthwise_block_grad", .infer = infer_grad, .decomposition = decompose_grad};

}  // namespace

DepthwiseBlock depthwise_block(Value x, const NormAndSlope& first, Value weight,
                               const NormAndSlope& second, const ops::Conv2d& options) {
  const Value y = x.graph().emit(block_op,
                                 {x, first.affine.gamma, first.affine.beta, first.slope, weight,
                                  second.affine.gamma, second.affine.beta, second.slope},
                                 attributes_of(first, second, options));
  return {y, {y.sibling(1), y.sibling(2)}, y.sibling(3), {y.sibling(4), y.sibling(5)}};
}

DepthwiseBlockGrad depthwise_block_grad(Value dy, Value x, const NormAndSlope& first, Value weight,
                                        const NormAndSlope& second, const DepthwiseBlock& block,
                                        const ops::Conv2d& options) {
  const Value dx = dy.graph().emit(
      grad_op,
      {dy, x, block.first.mean, block.first.variance, first.affine.gamma, first.affine.beta,
       first.slope, weight, block.z, block.second.mean, block.second.variance, second.affine.gamma,
       second.affine.beta, second.slope},
      attributes_of(first, second, options));
  const auto at = [&](std::int32_t output) { return dx.sibling(output); };
  return {dx, at(4), {{at(1), at(2)}, at(3)}, {{at(5), at(6)}, at(7)}};
}

}  // namespace ftrain::cpu
