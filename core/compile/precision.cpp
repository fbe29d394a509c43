#include "core/compile/precision.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <vector>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

class Lowering {
 public:
  Lowering(const Graph& graph, DType to) : old_(graph), to_(to), rebuild_(graph) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (node.op->leaf) {
        rebuild_.copy(node);
      } else {
        Attributes attributes = node.attributes;
        if (node.op->narrowing.when == Narrowing::When::by_option) {
          attributes.set("to", std::string(name_of(to_)));
        }
        emit(node, operands(node), std::move(attributes));
      }
    }
    // What is read from outside keeps its type.
    for (const Graph::Named& fetch : old_.fetches()) {
      rebuild_.map(fetch.value, as(rebuild_[fetch.value], fetch.value.dtype()));
    }
    return rebuild_.finish();
  }

 private:
  std::vector<Value> operands(const Node& node) {
    const bool narrow = is_narrow(node);
    std::vector<Value> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Value value = rebuild_[node.inputs[i]];
      if (!value.valid()) {
        inputs.emplace_back();
        continue;
      }
      const bool activation = narrow && node.op->narrowing.activations.contains(i);
      inputs.push_back(as(value, activation ? to_ : node.input(i).dtype));
    }
    return inputs;
  }

  bool is_narrow(const Node& node) const {
    const Narrowing& narrowing = node.op->narrowing;
    bool narrow = narrowing.when == Narrowing::When::begins;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!narrowing.activations.contains(i) || !node.inputs[i].valid()) continue;
      const TensorType& type = rebuild_[node.inputs[i]].type();
      if (type.shape.rank() != 4 || (type.dtype != DType::f32 && type.dtype != to_)) return false;
      narrow = narrow || type.dtype == to_;
    }
    return narrow;
  }

  void emit(const Node& node, std::vector<Value> inputs, Attributes attributes) {
    rebuild_.follow(node);
    const Value made =
        rebuild_.graph().emit(*node.op, std::move(inputs), std::move(attributes), node.name);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const auto output = static_cast<std::int32_t>(o);
      rebuild_.map({const_cast<Graph*>(&old_), node.index, output}, made.sibling(output));
    }
  }

  // The new value in that type; a cast is made once. Only activations are ever cast, and those
  // nobody writes.
  Value as(Value value, DType dtype) {
    if (value.dtype() == dtype) return value;
    const auto [it, is_new] = casts_.try_emplace({value.node_index(), value.output()});
    if (is_new) it->second = ops::cast(value, dtype);
    return it->second;
  }

  const Graph& old_;
  DType to_;
  Rebuild rebuild_;
  std::map<std::pair<std::int32_t, std::int32_t>, Value> casts_;
};

}  // namespace

std::unique_ptr<Graph> lower_precision(const Graph& graph, DType to) {
  return writes_states(graph) ? Lowering(graph, to).run() : remove_dead(graph);
}

}  // namespace ftrain
