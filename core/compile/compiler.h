// From the graph that core wrote to the program that a device runs: one pipeline for all devices.
//
// Its steps, and what a device adds to them, stand in ftrain/device/target.h. The result does not
// depend on addresses or on what was run before, so every rank that is given the same graph and the
// same choices of kernels makes the same program.
#pragma once

#include "ftrain/device/device.h"
#include "ftrain/device/target.h"

namespace ftrain {

// The graph's part: everything before kernels are chosen. `decomposed`: see Program; may be null.
FTRAIN_API Rewritten rewrite_graph(const Graph& graph, CompileTarget& target,
                                   const StateStore* store,
                                   std::vector<Decomposed>* decomposed = nullptr);

// All of it. DeviceError names a node that neither a kernel nor a decomposition does.
FTRAIN_API Program compile_graph(const Graph& graph, CompileTarget& target,
                                 const StateStore* store);

}  // namespace ftrain
