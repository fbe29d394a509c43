#include "plugins/devices/cpu/rewrite/precision.h"

#include "core/graph/passes.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> lower_precision(const Graph& graph) {
  return remove_dead(graph);
}

}  // namespace ftrain::cpu
