// What ranks exchange; at one rank each is the identity and emits nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

FTRAIN_API Value all_reduce_sum(Value x, std::int64_t ranks);
FTRAIN_API std::vector<Value> all_reduce_sum(std::vector<Value> tensors, std::int64_t ranks);
// [N, ...] -> [ranks N, ...]. `wire`: what x travels in, bf16 or its own type; the gradient is
// summed in x's own.
FTRAIN_API Value all_gather(Value x, std::int64_t ranks, std::optional<DType> wire = {});
FTRAIN_API Value reduce_scatter(Value x, std::int64_t ranks);  // [ranks N, ...] -> [N, ...], summed
FTRAIN_API Value broadcast(Value x, std::int64_t root, std::int64_t ranks);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef all_reduce, all_gather, reduce_scatter, broadcast;
}  // namespace def

}  // namespace ftrain::ops
