// Puts narrow 3x3 convolutions, the batch norms and PReLUs on both sides of them, and the gradients
// of all that, into two ops (see depthwise_ops.h). Runs on the graph with layouts, before other
// fusions; what does not match, statistics over several ranks for one, stays as it is.
#pragma once

#include <memory>

#include "ftrain/graph/graph.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> fuse_depthwise(const Graph& graph);

}  // namespace ftrain::cpu
