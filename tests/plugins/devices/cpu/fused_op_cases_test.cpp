// The op table's rows of fused ops.
#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/rewrite/depthwise_ops.h"
#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cpu {
namespace {

using Outputs = std::vector<Value>;

// What a fused op reads: moments and sums are any numbers, for the formulas do not care.
struct FusedLeaves {
  Value x, dy, other, slope;
  ops::Moments moments, fixed;
  ops::Affine affine;
  ops::BatchNormSums sums;

  FusedLeaves(CaseGraph& g, const Shape& shape, std::int64_t groups) {
    const Shape channels{shape[1]}, grouped{groups, shape[1]};
    x = g.fixed(shape, -1, 3), dy = g.fixed(shape), other = g.fixed(shape);
    slope = g.fixed(channels, 0.1, 0.4);
    moments = {g.fixed(grouped, 0.5, 1.5), g.fixed(grouped, 0.5, 2)};
    fixed = {g.fixed(channels, 0.5, 1.5), g.fixed(channels, 0.5, 2)};
    affine = {g.fixed(channels, 0.5, 1.5), g.fixed(channels)};
    sums = {g.fixed(grouped, -9, 9), g.fixed(grouped, -9, 9)};
  }
};

OpCase fused(const std::string& name, Shape shape, std::int64_t groups) {
  return {"fused batch norms " + name, [=](CaseGraph& g) {
            const FusedLeaves v(g, shape, groups);
            const ops::BatchNorm two_ranks{1e-5, 2};
            ops::batch_norm_prelu(v.x, v.moments, v.affine, v.slope, {});
            ops::batch_norm_add(v.x, v.moments, v.affine, v.other, {});
            ops::batch_norm_fixed_prelu(v.x, v.fixed, v.affine, v.slope, 1e-5);
            ops::batch_norm_fixed_add(v.x, v.fixed, v.affine, v.other, 1e-5);
            ops::batch_norm_prelu_sums(v.dy, v.x, v.moments, v.affine, v.slope, 1e-5);
            ops::batch_norm_prelu_input_grad(v.dy, v.x, v.moments, v.affine, v.slope, v.sums,
                                             two_ranks);
            ops::batch_norm_input_grad_add(v.dy, v.x, v.moments, v.affine.gamma, v.sums, v.other,
                                           two_ranks);
            ops::batch_norm_input_grad(v.dy, v.x, v.moments, v.affine.gamma, v.sums, two_ranks);
            return Outputs{};
          }};
}

OpCase whole(const std::string& name, Shape shape, std::int64_t groups) {
  return {"whole batch norms " + name, [=](CaseGraph& g) {
            const FusedLeaves v(g, shape, groups);
            const ops::WholeOptions options{1e-5, groups};
            ops::batch_norm_whole(v.x, v.affine, options);
            ops::batch_norm_whole_prelu(v.x, v.affine, v.slope, options);
            ops::batch_norm_whole_add(v.x, v.affine, v.other, options);
            ops::batch_norm_prelu_norm(v.x, v.affine, v.slope, v.affine, options, 2e-5);
            ops::batch_norm_add_norm(v.x, v.affine, v.other, v.affine, options, 2e-5);
            const ops::NormOperands norm{.x = v.x,
                                         .moments = v.moments,
                                         .gamma = v.affine.gamma,
                                         .beta = {},
                                         .slope = {},
                                         .eps = 1e-5};
            ops::NormOperands with_prelu = norm;
            with_prelu.beta = v.affine.beta;
            with_prelu.slope = v.slope;
            ops::batch_norm_grad(v.dy, norm);
            ops::batch_norm_grad(v.dy, with_prelu);
            ops::batch_norm_grad_add(v.dy, norm, v.other);
            ops::add_batch_norm_grad(v.dy, v.other, norm);
            ops::add_batch_norm_grad(v.dy, v.other, with_prelu);
            ops::batch_norm_grad_pair(v.dy, norm, v.other, norm);
            ops::batch_norm_grad_pair(v.dy, norm, v.other, with_prelu);
            return Outputs{};
          }};
}

// A narrow convolution with the batch norms and PReLUs around it, of `width` channels a group.
OpCase depthwise_block_case(const std::string& name, Shape shape, std::int64_t stride,
                            std::int64_t width) {
  return {"depthwise block " + name, [=](CaseGraph& g) {
            const Shape channels{shape[1]};
            const auto norm = [&] {
              return NormAndSlope{{g.fixed(channels, 0.5, 1.5), g.fixed(channels)},
                                  g.fixed(channels, 0.1, 0.4)};
            };
            const Value x = g.fixed(shape, -1, 3);
            const NormAndSlope first = norm(), second = norm();
            const Value weight = g.fixed({shape[1], width, 3, 3});
            const ops::Conv2d options{.stride = stride, .padding = 1, .groups = shape[1] / width};
            const DepthwiseBlock made = depthwise_block(x, first, weight, second, options);
            depthwise_block_grad(g.fixed(made.y.shape()), x, first, weight, second, made, options);
            return Outputs{};
          }};
}

}  // namespace

std::vector<OpCase> fused_op_cases() {
  return {
      fused("of images", {4, 16, 3, 5}, 1),
      fused("of images in groups", {4, 32, 3, 2}, 2),
      fused("of vectors", {6, 19}, 1),
      whole("of images", {4, 16, 3, 5}, 1),
      whole("of images in groups", {4, 32, 3, 2}, 2),
      whole("of vectors", {6, 24}, 1),
      depthwise_block_case("", {3, 16, 6, 7}, 1, 1),
      depthwise_block_case("of stride 2", {3, 16, 6, 7}, 2, 1),
      depthwise_block_case("of pairs", {3, 16, 6, 7}, 1, 2),
  };
}

}  // namespace ftrain::cpu
