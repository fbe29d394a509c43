// The layouts pass (core/compile/layouts.h) of this device: whatever lies around convolutions
// is channels-last, and their weights are K, R, S, C.
#pragma once

#include <memory>

#include "ftrain/device/device.h"
#include "ftrain/graph/graph.h"

namespace ftrain::cuda {

// States that `store` (may be null) holds keep the layout that they have there.
std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store);

}  // namespace ftrain::cuda
