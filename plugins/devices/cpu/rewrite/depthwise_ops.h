// Fused ops of a narrow 3x3 convolution (one or two channels a group) with the batch norms and
// PReLUs on both sides, forward and backward. All of it stays within a block of channels, so a
// device can pass over memory once for all of it, and what lies between is never stored.
//
// As core/ops/norm_chain.h's: each computes what its decomposition of plain ops does and has no
// gradient.
#pragma once

#include "core/ops/norm_chain.h"
#include "ftrain/ops.h"

namespace ftrain::cpu {

struct NormAndSlope {
  ops::Affine affine;
  Value slope;
  double eps = 1e-5;
};

// y = prelu(norm(z)), z = conv2d(prelu(norm(x)), weight); statistics of this batch as one group.
struct DepthwiseBlock {
  Value y;
  ops::Moments first;  // of x
  Value z;
  ops::Moments second;  // of z
};
DepthwiseBlock depthwise_block(Value x, const NormAndSlope& first, Value weight,
                               const NormAndSlope& second, const ops::Conv2d& options);

struct NormAndSlopeGrad {
  ops::BatchNormSums sums;
  Value slope;
};
struct DepthwiseBlockGrad {
  Value x, weight;
  NormAndSlopeGrad first, second;
};
// From the gradient of y. `moments` and z are the block's.
DepthwiseBlockGrad depthwise_block_grad(Value dy, Value x, const NormAndSlope& first, Value weight,
                                        const NormAndSlope& second, const DepthwiseBlock& block,
                                        const ops::Conv2d& options);

}  // namespace ftrain::cpu
