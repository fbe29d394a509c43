// The last pass: convolution weights as 16-bit convolutions read them, kept from step to step.
//
// In a program that writes states, a dense convolution whose activations lie in 16 bits reads its
// weight from `cast(weight)`, a kept node: done when it is stale alone (in the first run, and after
// others wrote the states). From then on the optimizer's update, which has every weight in its
// hands, writes the copy anew beside it, so that a step casts no weight. A frozen weight's copy is
// never written anew. A weight that something else than an optimizer writes has no copy to keep: it
// is cast where it is read. A program that writes no state keeps what core/compile/cached.h
// says.
//
// Works behind layouts, fusions and merge_updates: copies lie in the weight's own order.
#pragma once

#include "ftrain/device/target.h"
#include "ftrain/graph/graph.h"

namespace ftrain::cuda {

Rewritten add_working_copies(const Graph& graph);

}  // namespace ftrain::cuda
