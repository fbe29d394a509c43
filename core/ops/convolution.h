// Gradient ops of the convolution.
#pragma once

#include "ftrain/ops.h"

namespace ftrain::ops {

// Gradients of conv2d(x, weight): of x, whose shape is [N, C, H, W] = `shape`; and of weight.
FTRAIN_API Value conv2d_input_grad(Value dy, Value weight, const Shape& shape,
                                   const Conv2d& options);
FTRAIN_API Value conv2d_weight_grad(Value dy, Value x, const Shape& weight, const Conv2d& options);

}  // namespace ftrain::ops
