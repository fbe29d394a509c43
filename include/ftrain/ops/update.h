// Updates of dense parameters.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

// Writes parameter and slots by `update` (ftrain/model/optimizer.h). coefficient: scalar that the
// gradient is multiplied with (clipping); invalid: 1. Nothing changes when ok (scalar) is 0.
FTRAIN_API void optimizer_update(Value parameter, std::vector<Value> slots, Value gradient,
                                 Value rate, Value coefficient, Value ok,
                                 std::shared_ptr<const Payload> update, double rate_factor,
                                 double decay);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef optimizer_update;
}  // namespace def

}  // namespace ftrain::ops
