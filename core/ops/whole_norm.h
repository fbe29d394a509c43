// Fused ops for batch norms whose moments are of this rank's samples alone: statistics and norm in
// one op, forward and backward, and the norm that follows with them. A device can keep a channel's
// activations in its caches between the passes that this takes.
//
// Like fused.h's, each computes what its decomposition of plain ops does, has no gradient, and is
// put in place by a device's rewrite.
#pragma once

#include "core/ops/fused.h"

namespace ftrain::ops {

struct WholeOptions {
  double eps = 1e-5;
  std::int64_t groups = 1;
};
struct WholeNorm {
  Value y;
  Moments moments;  // of x
};
// batch_norm(x, batch_moments(x)), then the PReLU or the addition.
FTRAIN_API WholeNorm batch_norm_whole(Value x, Affine affine, const WholeOptions& options);
FTRAIN_API WholeNorm batch_norm_whole_prelu(Value x, Affine affine, Value slope,
                                            const WholeOptions& options);
FTRAIN_API WholeNorm batch_norm_whole_add(Value x, Affine affine, Value other,
                                          const WholeOptions& options);

// y as by the last two, and the batch norm of y.
struct NormPair {
  WholeNorm first, second;
};
FTRAIN_API NormPair batch_norm_prelu_norm(Value x, Affine first, Value slope, Affine second,
                                          const WholeOptions& options, double second_eps);
FTRAIN_API NormPair batch_norm_add_norm(Value x, Affine first, Value other, Affine second,
                                        const WholeOptions& options, double second_eps);

// What the gradient through a batch norm (and the PReLU behind it) needs beside dy.
struct NormOperands {
  Value x;
  Moments moments;  // of x
  Value gamma;
  Value beta, slope;  // with a PReLU only
  double eps = 1e-5;
};
struct NormGrad {
  Value x;
  BatchNormSums sums;
  Value slope;  // with a PReLU only
};
// batch_norm_sums and batch_norm_input_grad, or batch_norm_prelu_sums and
// batch_norm_prelu_input_grad when the operands have a slope.
FTRAIN_API NormGrad batch_norm_grad(Value dy, const NormOperands& norm);
// batch_norm_grad without a PReLU, + other.
FTRAIN_API NormGrad batch_norm_grad_add(Value dy, const NormOperands& norm, Value other);

// d = a + b, and batch_norm_grad(d).
struct SumThenGrad {
  Value d;
  NormGrad grad;
};
FTRAIN_API SumThenGrad add_batch_norm_grad(Value a, Value b, const NormOperands& norm);
// d = batch_norm_grad_add(dz, outer, other), and batch_norm_grad(d, inner).
struct GradThenGrad {
  NormGrad outer, inner;  // d is outer.x
};
FTRAIN_API GradThenGrad batch_norm_grad_pair(Value dz, const NormOperands& outer, Value other,
                                             const NormOperands& inner);

namespace def {
FTRAIN_API extern const OpDef batch_norm_whole, batch_norm_whole_prelu, batch_norm_whole_add,
    batch_norm_prelu_norm, batch_norm_add_norm, batch_norm_grad, batch_norm_prelu_grad,
    batch_norm_grad_add, add_batch_norm_grad, add_batch_norm_prelu_grad, batch_norm_grad_pair,
    batch_norm_prelu_grad_pair;
}  // namespace def

}  // namespace ftrain::ops
