#include "core/compile/cached.h"

#include <algorithm>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {

std::vector<bool> kept_nodes(const Graph& graph) {
  if (writes_states(graph)) return {};
  std::vector<bool> kept(static_cast<std::size_t>(graph.size()), false);
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->leaf || is_collective(node) || node.inputs.empty()) continue;
    kept[static_cast<std::size_t>(i)] =
        std::all_of(node.inputs.begin(), node.inputs.end(), [&](const Value& input) {
          return !input.valid() || graph.state_of(input) != nullptr ||
                 kept[static_cast<std::size_t>(input.node_index())];
        });
  }
  return kept;
}

std::vector<bool> lasting_nodes(const Graph& graph, const std::vector<bool>& kept) {
  std::vector<bool> lasting(kept.size(), false);
  if (kept.empty()) return lasting;
  const auto mark = [&](Value value) {
    while (value.node().op->view) value = value.node().inputs[0];
    const auto n = static_cast<std::size_t>(value.node_index());
    if (kept[n]) lasting[n] = true;
  };
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (kept[static_cast<std::size_t>(i)]) continue;
    for (const Value& input : graph.node(i).inputs) {
      if (input.valid()) mark(input);
    }
  }
  for (const Graph::Named& fetch : graph.fetches()) mark(fetch.value);
  return lasting;
}

}  // namespace ftrain
