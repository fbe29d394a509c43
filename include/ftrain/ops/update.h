// Updates of dense parameters and of other states.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {

// Where the operands of optimizer_update stand. `coefficient` and `step` may be invalid.
namespace update_operand {
inline constexpr std::size_t parameter = 0, gradient = 1, rate = 2, ok = 3, coefficient = 4,
                             step = 5, first_slot = 6;
// Whether a parameter's elements stand there, and not a scalar.
inline constexpr bool is_tensor(std::size_t i) {
  return i < rate || i >= first_slot;
}
}  // namespace update_operand

}  // namespace ftrain

namespace ftrain::ops {

// Writes parameter and slots by `update` (ftrain/model/optimizer.h). coefficient: scalar that the
// gradient is multiplied with (clipping); invalid: 1. step: i64 scalar, the number of steps before
// this one, skipped ones too; invalid: 0. Nothing changes when ok (scalar) is 0.
FTRAIN_API void optimizer_update(Value parameter, std::vector<Value> slots, Value gradient,
                                 Value rate, Value coefficient, Value ok, Value step,
                                 std::shared_ptr<const Payload> update, double rate_factor,
                                 double decay);

// Writes state <- value; nothing changes when ok (scalar) is 0.
FTRAIN_API void assign(Value state, Value value, Value ok);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef optimizer_update, assign;
}  // namespace def

}  // namespace ftrain::ops
