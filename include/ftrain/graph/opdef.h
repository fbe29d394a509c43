// An op as data.
//
// An OpDef is a constant with static storage; its address is its identity. Third parties define
// theirs in their own libraries and emit them like ours; a device finds kernels by the op's name.
#pragma once

#include <string_view>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

struct OpDef {
  std::string_view name;

  // The outputs' types from inputs and attributes. ShapeError on a broken rule (see require()).
  std::vector<TensorType> (*infer)(const Node& node);

  // Gradients of the inputs (an invalid Value where there is none), emitted into `graph`, from the
  // gradients of the outputs (invalid where nothing flows back). nullptr: not differentiable.
  std::vector<Value> (*vjp)(Graph& graph, const Node& node,
                            const std::vector<Value>& gradients) = nullptr;

  // The same outputs by plain ops: documentation, fallback and test oracle of a fused op.
  std::vector<Value> (*twin)(Graph& graph, const Node& node) = nullptr;

  // Inputs, states or made of states alone (kept copies), whose storage the op overwrites. nullptr:
  // none.
  std::vector<int> (*writes)(const Node& node) = nullptr;

  // The output has the input's elements in the input's order: it shares its storage.
  bool view = false;

  // A leaf: an input or a state.
  bool leaf = false;

  // Ranks meet in it: it stays where it is, on every rank alike.
  bool collective = false;
};

// Throws a ShapeError "OP: RULE; got TYPES" when `holds` is false. For infer functions.
FTRAIN_API void require(bool holds, const Node& node, std::string_view rule);

inline std::vector<int> written_inputs(const Node& node) {
  return node.op->writes ? node.op->writes(node) : std::vector<int>{};
}

}  // namespace ftrain
