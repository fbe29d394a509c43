// What strategies share about the parts of a step (gradient accumulation).
#pragma once

#include <cstdint>

#include "ftrain/model/parallelism.h"
#include "ftrain/ops.h"

namespace ftrain {

// What a sum over `means` means of a part contributes to the step's loss.
inline Value share_of_step(const StepBuild& build, Value sum, std::int64_t means) {
  const std::int64_t count = means * build.parts;
  return count == 1 ? sum : ops::scale(sum, 1.0 / static_cast<double>(count));
}

// Adds a part's loss to those before. Whether all of them are finite.
inline Value add_loss(Value loss, PartialGradients& so_far) {
  so_far.loss = so_far.loss.valid() ? ops::add(so_far.loss, loss) : loss;
  return ops::all_finite({so_far.loss});
}

}  // namespace ftrain
