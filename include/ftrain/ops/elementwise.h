// Element by element: sums, factors, activations, casts, dropout, and their gradients.
//
// Images are N, C, H, W; everything is floating (f32, or f64 for gradient checks) unless said.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

FTRAIN_API Value add(Value a, Value b);  // equal shapes
FTRAIN_API Value mul(Value a, Value b);  // equal shapes
FTRAIN_API Value scale(Value x, double factor);
FTRAIN_API Value scale_by(Value x, Value factor);  // factor: a scalar
FTRAIN_API Value shift(Value x, double summand);   // x + summand
// x between the bounds; the gradient is 0 beyond them, as torch's clamp.
FTRAIN_API Value clamp(Value x, double low, double high);
FTRAIN_API Value sqrt(Value x);
FTRAIN_API Value reciprocal(Value x);
// Rows of [N, D], each times its factor of [N].
FTRAIN_API Value scale_rows(Value x, Value factors);
FTRAIN_API Value relu(Value x);
// y = max(0, x) + slope[c] min(0, x); slope: [C]. He et al., "Delving Deep into Rectifiers" (2015).
FTRAIN_API Value prelu(Value x, Value slope);
FTRAIN_API Value cast(Value x, DType to);
// Inverted dropout: zero with probability p, else x / (1 - p). The mask is Philox(seed, step,
// global element): `first_sample` is the global index of row 0 of this rank's batch in the step.
FTRAIN_API Value dropout(Value x, double p, Value step, std::uint64_t seed,
                         std::int64_t first_sample);

// ---- gradients
// dy where low <= x <= high, else 0.
FTRAIN_API Value clamp_grad(Value dy, Value x, double low, double high);
// dy where x > 0, else 0.
FTRAIN_API Value relu_grad(Value dy, Value x);
// dx = dy (x > 0 ? 1 : slope[c]); dslope[c] = sum of dy x over x <= 0.
struct PReluGrad {
  Value x, slope;
};
FTRAIN_API PReluGrad prelu_grad(Value dy, Value x, Value slope);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef add, mul, scale, scale_by, shift, clamp, clamp_grad, sqrt, reciprocal,
    scale_rows, relu, relu_grad, prelu, prelu_grad, cast, dropout;
}  // namespace def

}  // namespace ftrain::ops
