// The precision pass: a graph written in f32, with its activations in bf16.
//
// Works on the plain graph, before layouts. Images' activations (4-D) and their gradients become
// bf16; parameters, their gradients and updates, batch-norm statistics and coefficients, the
// embedding, the class-center step and every scalar stay f32. Casts stand between: a convolution
// reads its weight through one.
#pragma once

#include <memory>

#include "core/graph/graph.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> lower_precision(const Graph& graph);

}  // namespace ftrain::cpu
