// The step's guards and other scalars.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

// min(1, limit / (sqrt(squared_norm) + 1e-6)), as torch's clip_grad_norm_.
FTRAIN_API Value clip_coefficient(Value squared_norm, double limit);
// 1 when every element of every scalar given is finite, else 0.
FTRAIN_API Value all_finite(std::vector<Value> scalars);
// Writes scale and steps (scalar f32 states): after a bad step (ok = 0) scale *= backoff and
// steps = 0; after `interval` good ones in a row scale *= growth. As torch.amp.GradScaler.
struct LossScale {
  double growth = 2, backoff = 0.5;
  std::int64_t interval = 2000;
};
FTRAIN_API void update_loss_scale(Value scale, Value steps, Value ok, const LossScale& options);
// A constant scalar of f32.
FTRAIN_API Value constant(Graph& graph, double value);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef clip_coefficient, all_finite, update_loss_scale, constant;
}  // namespace def

}  // namespace ftrain::ops
