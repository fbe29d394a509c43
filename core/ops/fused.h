// Fused ops: what a device's rewrite puts in place of runs of plain ops, to pass over memory once.
//
// Each computes exactly what its decomposition of plain ops does. The backward ones recompute the
// batch norm's output z from x, so that z is never stored. No fused op has a gradient: fusing comes
// after gradients(). Formulas: normalization.h.
#pragma once

#include "ftrain/ops/normalization.h"

namespace ftrain::ops {

// A batch norm's coefficients.
struct Affine {
  Value gamma, beta;
};

// prelu(batch_norm(x)) and batch_norm(x) + other.
FTRAIN_API Value batch_norm_prelu(Value x, Moments moments, Affine affine, Value slope,
                                  const BatchNorm& options);
FTRAIN_API Value batch_norm_add(Value x, Moments moments, Affine affine, Value other,
                                const BatchNorm& options);
// The same with constant statistics.
FTRAIN_API Value batch_norm_fixed_prelu(Value x, Moments fixed, Affine affine, Value slope,
                                        double eps);
FTRAIN_API Value batch_norm_fixed_add(Value x, Moments fixed, Affine affine, Value other,
                                      double eps);

// With dz = prelu_grad(dy, z, slope): batch_norm_sums(dz, x) and the gradient of slope [C].
struct BatchNormPReluSums {
  BatchNormSums norm;
  Value slope;
};
FTRAIN_API BatchNormPReluSums batch_norm_prelu_sums(Value dy, Value x, Moments moments,
                                                    Affine affine, Value slope, double eps);
// batch_norm_input_grad(dz, x, ...).
FTRAIN_API Value batch_norm_prelu_input_grad(Value dy, Value x, Moments moments, Affine affine,
                                             Value slope, BatchNormSums sums,
                                             const BatchNorm& options);
// batch_norm_input_grad(dy, x, ...) + other.
FTRAIN_API Value batch_norm_input_grad_add(Value dy, Value x, Moments moments, Value gamma,
                                           BatchNormSums sums, Value other,
                                           const BatchNorm& options);

namespace def {
FTRAIN_API extern const OpDef batch_norm_prelu, batch_norm_add, batch_norm_fixed_prelu,
    batch_norm_fixed_add, batch_norm_prelu_sums, batch_norm_prelu_input_grad,
    batch_norm_input_grad_add;
}  // namespace def

}  // namespace ftrain::ops
