#include "core/ops/fused.h"

#include "ftrain/graph/opdef.h"
#include "ftrain/ops/elementwise.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

ops::BatchNorm options_of(const Node& node) {
  return {node.attributes.number("eps"), node.attributes.integer("ranks")};
}

Attributes attributes_of(const ops::BatchNorm& options) {
  return {{"eps", options.eps}, {"ranks", options.ranks}};
}

void require_norm(const Node& node, std::size_t x, bool grouped) {
  const Shape& shape = node.input(x).shape;
  require(shape.rank() == 4 || shape.rank() == 2, node, "x must be [N, C, H, W] or [N, C]");
  const Shape channels{shape[1]};
  for (const std::size_t i : {x + 1, x + 2}) {
    const Shape& moments = node.input(i).shape;
    require(grouped ? moments.rank() == 2 && moments[1] == shape[1] && shape[0] % moments[0] == 0
                    : moments == channels,
            node, grouped ? "the moments must be [groups, C]" : "the statistics must be [C]");
  }
  require(node.input(x + 3).shape == channels, node, "gamma must be [C]");
}

template <bool grouped, bool prelu>
std::vector<TensorType> infer_forward(const Node& node) {
  require_norm(node, 0, grouped);
  const Shape channels{node.input(0).shape[1]};
  require(node.input(4).shape == channels, node, "beta must be [C]");
  require(node.input(5).shape == (prelu ? channels : node.input(0).shape), node,
          prelu ? "slope must be [C]" : "other must have x's shape");
  return {node.input(0)};
}

std::vector<TensorType> infer_sums(const Node& node) {
  require_norm(node, 1, true);
  require(node.input(0).shape == node.input(1).shape, node, "dy and x must have one shape");
  return {node.input(2), node.input(2), node.input(6)};
}

std::vector<TensorType> infer_input_grad(const Node& node) {
  require_norm(node, 1, true);
  require(node.input(0).shape == node.input(1).shape, node, "dy and x must have one shape");
  return {node.input(0)};
}

ops::Moments moments_of(const Node& node, std::size_t first) {
  return {node.inputs[first], node.inputs[first + 1]};
}

Value normalized(const Node& node) {
  return ops::batch_norm(node.inputs[0], moments_of(node, 1), node.inputs[3], node.inputs[4],
                         options_of(node));
}

Value normalized_fixed(const Node& node) {
  return ops::batch_norm_fixed(node.inputs[0], node.inputs[1], node.inputs[2], node.inputs[3],
                               node.inputs[4], node.attributes.number("eps"));
}

// prelu's gradient at z, which is computed again. Inputs: dy, x, mean, variance, gamma, beta,
// slope.
ops::PReluGrad gradient_at_z(const Node& node) {
  const Value z = ops::batch_norm(node.inputs[1], moments_of(node, 2), node.inputs[4],
                                  node.inputs[5], {node.attributes.number("eps"), 1});
  return ops::prelu_grad(node.inputs[0], z, node.inputs[6]);
}

}  // namespace

namespace ops::def {

const OpDef batch_norm_prelu{.name = "batch_norm_prelu",
                             .infer = infer_forward<true, true>,
                             .decomposition = [](Graph&, const Node& node) {
                               return Values{ops::prelu(normalized(node), node.inputs[5])};
                             }};
const OpDef batch_norm_add{.name = "batch_norm_add",
                           .infer = infer_forward<true, false>,
                           .decomposition = [](Graph&, const Node& node) {
                             return Values{ops::add(normalized(node), node.inputs[5])};
                           }};
const OpDef batch_norm_fixed_prelu{
    .name = "batch_norm_fixed_prelu",
    .infer = infer_forward<false, true>,
    .decomposition = [](Graph&, const Node& node) {
      return Values{ops::prelu(normalized_fixed(node), node.inputs[5])};
    }};
const OpDef batch_norm_fixed_add{.name = "batch_norm_fixed_add",
                                 .infer = infer_forward<false, false>,
                                 .decomposition = [](Graph&, const Node& node) {
                                   return Values{ops::add(normalized_fixed(node), node.inputs[5])};
                                 }};
const OpDef batch_norm_prelu_sums{.name = "batch_norm_prelu_sums",
                                  .infer = infer_sums,
                                  .decomposition = [](Graph&, const Node& node) {
                                    const ops::PReluGrad dz = gradient_at_z(node);
                                    const ops::BatchNormSums sums = ops::batch_norm_sums(
                                        dz.x, node.inputs[1], moments_of(node, 2),
                                        node.attributes.number("eps"));
                                    return Values{sums.gamma, sums.beta, dz.slope};
                                  }};
const OpDef batch_norm_prelu_input_grad{
    .name = "batch_norm_prelu_input_grad",
    .infer = infer_input_grad,
    .decomposition = [](Graph&, const Node& node) {
      return Values{ops::batch_norm_input_grad(gradient_at_z(node).x, node.inputs[1],
                                               moments_of(node, 2), node.inputs[4],
                                               {node.inputs[7], node.inputs[8]}, options_of(node))};
    }};
const OpDef batch_norm_input_grad_add{.name = "batch_norm_input_grad_add",
                                      .infer = infer_input_grad,
                                      .decomposition = [](Graph&, const Node& node) {
                                        const Value dx = ops::batch_norm_input_grad(
                                            node.inputs[0], node.inputs[1], moments_of(node, 2),
                                            node.inputs[4], {node.inputs[5], node.inputs[6]},
                                            options_of(node));
                                        return Values{ops::add(dx, node.inputs[7])};
                                      }};

}  // namespace ops::def

namespace ops {

Value batch_norm_prelu(Value x, Moments moments, Affine affine, Value slope,
                       const BatchNorm& options) {
  return x.graph().emit(def::batch_norm_prelu,
                        {x, moments.mean, moments.variance, affine.gamma, affine.beta, slope},
                        attributes_of(options));
}

Value batch_norm_add(Value x, Moments moments, Affine affine, Value other,
                     const BatchNorm& options) {
  return x.graph().emit(def::batch_norm_add,
                        {x, moments.mean, moments.variance, affine.gamma, affine.beta, other},
                        attributes_of(options));
}

Value batch_norm_fixed_prelu(Value x, Moments fixed, Affine affine, Value slope, double eps) {
  return x.graph().emit(def::batch_norm_fixed_prelu,
                        {x, fixed.mean, fixed.variance, affine.gamma, affine.beta, slope},
                        {{"eps", eps}});
}

Value batch_norm_fixed_add(Value x, Moments fixed, Affine affine, Value other, double eps) {
  return x.graph().emit(def::batch_norm_fixed_add,
                        {x, fixed.mean, fixed.variance, affine.gamma, affine.beta, other},
                        {{"eps", eps}});
}

BatchNormPReluSums batch_norm_prelu_sums(Value dy, Value x, Moments moments, Affine affine,
                                         Value slope, double eps) {
  const Value dgamma = x.graph().emit(
      def::batch_norm_prelu_sums,
      {dy, x, moments.mean, moments.variance, affine.gamma, affine.beta, slope}, {{"eps", eps}});
  return {{dgamma, dgamma.sibling(1)}, dgamma.sibling(2)};
}

Value batch_norm_prelu_input_grad(Value dy, Value x, Moments moments, Affine affine, Value slope,
                                  BatchNormSums sums, const BatchNorm& options) {
  return x.graph().emit(def::batch_norm_prelu_input_grad,
                        {dy, x, moments.mean, moments.variance, affine.gamma, affine.beta, slope,
                         sums.gamma, sums.beta},
                        attributes_of(options));
}

Value batch_norm_input_grad_add(Value dy, Value x, Moments moments, Value gamma, BatchNormSums sums,
                                Value other, const BatchNorm& options) {
  return x.graph().emit(
      def::batch_norm_input_grad_add,
      {dy, x, moments.mean, moments.variance, gamma, sums.gamma, sums.beta, other},
      attributes_of(options));
}

}  // namespace ops
}  // namespace ftrain
