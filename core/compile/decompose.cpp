#include "core/compile/decompose.h"

#include <algorithm>
#include <cstddef>

#include "core/compile/layouts.h"
#include "core/compile/passes.h"
#include "ftrain/base/error.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {
namespace {

// Decompositions within decompositions; more than that is a circle.
constexpr int deepest = 16;

std::string title(const Node& node) {
  std::string text = "op '" + std::string(node.op->name) + "'";
  if (!node.name.empty()) text += " at '" + node.name + "'";
  return text;
}

Value in_layout(Graph& graph, Value value, const std::string& layout, const std::string& name) {
  if (!value.valid() || value.type().layout == layout) return value;
  return graph.emit(reorder_op, {value}, {{"layout", layout}}, name);
}

bool writes_arranged(const Node& node) {
  const std::vector<int> written = written_inputs(node);
  return std::any_of(written.begin(), written.end(), [&](int i) {
    return !node.input(static_cast<std::size_t>(i)).layout.empty();
  });
}

bool can_be_decomposed(const Node& node) {
  if (node.op->leaf || node.op->view || node.op->decomposition == nullptr) return false;
  if (node.op == &reorder_op) return false;  // the same elements, but as they lie
  return node.op->ordering == Ordering::update || !writes_arranged(node);
}

void check_type(const Node& node, std::size_t output, const TensorType& made) {
  TensorType wanted = node.outputs[output];
  wanted.layout.clear();
  if (made.shape == wanted.shape && made.dtype == wanted.dtype) return;
  throw DeviceError(title(node) + ": its decomposition gives " + made.text() +
                    " where the op gives " + wanted.text() + "; its definition is wrong");
}

void put_plainer(Rebuild& rebuild, const Node& node) {
  rebuild.follow(node);
  Graph& graph = rebuild.graph();
  const std::int32_t before = graph.size();
  const bool any_order = node.op->ordering == Ordering::update;
  Node moved = node;
  for (Value& input : moved.inputs) {
    input = rebuild[input];
    if (!any_order) input = in_layout(graph, input, {}, node.name);
  }
  if (!any_order) {
    for (TensorType& output : moved.outputs) output.layout.clear();
  }
  const std::vector<Value> made = node.op->decomposition(graph, moved);
  const Value first(const_cast<Graph*>(&rebuild.old()), node.index, 0);
  for (std::size_t i = 0; i < std::min(made.size(), node.outputs.size()); ++i) {
    if (!made[i].valid()) continue;
    check_type(node, i, made[i].type());
    rebuild.map(first.sibling(static_cast<std::int32_t>(i)),
                any_order ? made[i] : in_layout(graph, made[i], node.outputs[i].layout, node.name));
  }
  for (std::int32_t i = before; i < graph.size(); ++i) {
    if (graph.node(i).name.empty()) graph.node(i).name = node.name;
  }
}

// Null: nothing to replace.
std::unique_ptr<Graph> once(const Graph& graph, const NoKernel& no_kernel,
                            std::vector<Decomposed>& done) {
  std::vector<char> replaced(static_cast<std::size_t>(graph.size()), 0);
  bool any = false;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (!can_be_decomposed(node)) continue;
    if (std::optional<Refusals> refused = no_kernel(node)) {
      done.push_back({std::string(node.op->name), node.name, std::move(*refused)});
      replaced[static_cast<std::size_t>(i)] = 1;
      any = true;
    }
  }
  if (!any) return nullptr;
  Rebuild rebuild(graph);
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (replaced[static_cast<std::size_t>(i)])
      put_plainer(rebuild, graph.node(i));
    else
      rebuild.copy(graph.node(i));
  }
  return rebuild.finish();
}

}  // namespace

std::unique_ptr<Graph> decompose(const Graph& graph, const NoKernel& no_kernel,
                                 std::vector<Decomposed>& done) {
  std::unique_ptr<Graph> now;
  for (int depth = 0;; ++depth) {
    std::unique_ptr<Graph> plainer = once(now ? *now : graph, no_kernel, done);
    if (!plainer) return now;
    if (depth == deepest) {
      throw DeviceError("op '" + done.back().op + "' at '" + done.back().name +
                        "' has no kernel, and its decomposition leads back to itself");
    }
    now = std::move(plainer);
  }
}

}  // namespace ftrain
