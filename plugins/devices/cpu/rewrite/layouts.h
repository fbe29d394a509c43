// The layouts pass (core/runtime/layouts.h) of this device: activations in channel blocks,
// convolution weights as oneDNN wants them.
#pragma once

#include <memory>

#include "core/graph/graph.h"
#include "core/runtime/device.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store);

}  // namespace ftrain::cpu
