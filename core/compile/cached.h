// What a program computes once and keeps: nodes that depend on states alone.
#pragma once

#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

// What Program::kept says: the nodes that depend on states alone, in a graph that writes none.
FTRAIN_API std::vector<bool> kept_nodes(const Graph& graph);
// Of them those that others than them read: what must stay in memory.
FTRAIN_API std::vector<bool> lasting_nodes(const Graph& graph, const std::vector<bool>& kept);

}  // namespace ftrain
