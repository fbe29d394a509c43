// The layouts pass (core/compile/layouts.h) of this device: activations in channel blocks,
// convolution weights as oneDNN wants them.
#pragma once

#include <memory>

#include "ftrain/device/device.h"
#include "ftrain/graph/graph.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store);

}  // namespace ftrain::cpu
