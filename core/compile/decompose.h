// Puts plainer ops in the place of those that a device has no kernel for.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ftrain/device/device.h"
#include "ftrain/graph/graph.h"

namespace ftrain {

// Kernels' names and why they do not do a node.
using Refusals = std::vector<std::pair<std::string, std::string>>;

// Why no kernel does a node; nothing where one does.
using NoKernel = std::function<std::optional<Refusals>(const Node& node)>;

// Replaces every node that has no kernel and whose op has a decomposition by that, and what it is
// made of by its own where that has no kernel either. The new nodes bear the name of the node and
// stand in its stage. What was replaced is added to `done`; null: nothing was, the graph stays.
//
// A decomposition is written for row-major tensors: where the node's lie otherwise they are
// reordered around it. A node that writes a state which lies otherwise stays as it is, unless its
// op is an update of elements in any order. DeviceError where a decomposition leads back to itself
// or gives other types than the op.
FTRAIN_API std::unique_ptr<Graph> decompose(const Graph& graph, const NoKernel& no_kernel,
                                            std::vector<Decomposed>& done);

}  // namespace ftrain
