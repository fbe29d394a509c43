// Gradient ops of the element-by-element ops.
#pragma once

#include "ftrain/ops.h"

namespace ftrain::ops {

// dy where x > 0, else 0.
FTRAIN_API Value relu_grad(Value dy, Value x);
// dx = dy (x > 0 ? 1 : slope[c]); dslope[c] = sum of dy x over x <= 0.
struct PReluGrad {
  Value x, slope;
};
FTRAIN_API PReluGrad prelu_grad(Value dy, Value x, Value slope);

}  // namespace ftrain::ops
