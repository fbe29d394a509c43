#include "plugins/devices/cpu/rewrite/recompute.h"

#include "core/graph/passes.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> recompute(const Graph& graph, const std::string&) {
  return remove_dead(graph);
}

}  // namespace ftrain::cpu
