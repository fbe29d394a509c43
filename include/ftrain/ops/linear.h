// Products of matrices.
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

// op(a) op(b) of matrices [M, K], [K, N] after the transpositions.
FTRAIN_API Value matmul(Value a, Value b, bool transpose_a = false, bool transpose_b = false);
// x [N, C], bias [C]
FTRAIN_API Value add_bias(Value x, Value bias);
// x [N, in], weight [out, in], bias [out] or invalid -> [N, out]
FTRAIN_API Value linear(Value x, Value weight, Value bias = {});

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef matmul, add_bias;
}  // namespace def

}  // namespace ftrain::ops
