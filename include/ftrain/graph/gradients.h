// Reverse-mode differentiation on the graph.
#pragma once

#include <span>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

// A value and the gradient of the loss with respect to it.
struct Seed {
  Value value, gradient;
};

// Emits the backward walk from `seeds` and returns the gradient of each of `targets` (invalid where
// the seeds do not depend on it). Several seeds add up. std::logic_error names an op on the way
// that has no vjp.
FTRAIN_API std::vector<Value> gradients(Graph& graph, std::span<const Seed> seeds,
                                        std::span<const Value> targets);

}  // namespace ftrain
