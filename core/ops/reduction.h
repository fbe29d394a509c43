// Gradient ops of the reductions.
#pragma once

#include "ftrain/ops.h"

namespace ftrain::ops {

// dy [N, C] spread evenly over [N, C, H, W] = `shape`: dy / (H W).
FTRAIN_API Value global_average_pool_grad(Value dy, const Shape& shape);
// A scalar repeated over `shape`, and a row [C] repeated over [N, C].
FTRAIN_API Value fill_like(Value scalar, const Shape& shape);
FTRAIN_API Value repeat_rows(Value row, std::int64_t rows);

}  // namespace ftrain::ops
