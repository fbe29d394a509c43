// The same elements in another shape, or some of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

FTRAIN_API Value reshape(Value x, Shape shape);  // the same elements in row-major order
FTRAIN_API Value flatten(Value x);               // [N, ...] -> [N, rest]
// Rows [first, first + count) of the first dimension, copied. No gradient is taken: it cuts inputs.
FTRAIN_API Value slice_rows(Value x, std::int64_t first, std::int64_t count);
// One behind the other along the first dimension; the rest is equal. No gradient is taken.
FTRAIN_API Value concat_rows(std::vector<Value> parts);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef reshape, slice_rows, concat_rows;
}  // namespace def

}  // namespace ftrain::ops
