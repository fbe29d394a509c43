// Sums over elements, rows and images, and their gradients.
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

FTRAIN_API Value global_average_pool(Value x);  // [N, C, H, W] -> [N, C]
FTRAIN_API Value sum(Value x);                  // -> scalar
FTRAIN_API Value mean(Value x);                 // -> scalar
FTRAIN_API Value sum_rows(Value x);             // [N, C] -> [C]
// The sum of squares over all tensors -> scalar, accumulated in double.
FTRAIN_API Value squared_norm(std::vector<Value> tensors);

// ---- gradients
// dy [N, C] spread evenly over [N, C, H, W] = `shape`: dy / (H W).
FTRAIN_API Value global_average_pool_grad(Value dy, const Shape& shape);
// A scalar repeated over `shape`, and a row [C] repeated over [N, C].
FTRAIN_API Value fill_like(Value scalar, const Shape& shape);
FTRAIN_API Value repeat_rows(Value row, std::int64_t rows);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef squared_norm, global_average_pool, global_average_pool_grad, sum,
    fill_like, sum_rows, repeat_rows;
}  // namespace def

}  // namespace ftrain::ops
