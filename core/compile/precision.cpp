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

// An op that takes activations in 16 bits. Its other operands are f32, and its infer function says
// what type its outputs then have.
struct Rule {
  std::string_view op;
  std::vector<std::size_t> activations;  // operands
  // Is lowered by itself; the others follow their operands.
  bool begins = false;
};

const Rule* rule_of(std::string_view op) {
  static const std::vector<Rule> rules = {
      {"conv2d", {0}, true},
      {"conv2d_input_grad", {0}, true},
      {"conv2d_weight_grad", {0, 1}, true},
      {"batch_moments", {0}},
      {"batch_norm", {0}},
      {"batch_norm_sums", {0, 1}},
      {"batch_norm_input_grad", {0, 1}},
      {"batch_norm_fixed", {0}},
      {"batch_norm_fixed_input_grad", {0}},
      {"prelu", {0}},
      {"prelu_grad", {0, 1}},
      {"relu", {0}},
      {"relu_grad", {0, 1}},
      {"add", {0, 1}},
      {"mul", {0, 1}},
      {"scale", {0}},
      {"dropout", {0}},
      {"global_average_pool", {0}},
  };
  const auto found =
      std::find_if(rules.begin(), rules.end(), [&](const Rule& rule) { return rule.op == op; });
  return found != rules.end() ? &*found : nullptr;
}

class Lowering {
 public:
  Lowering(const Graph& graph, DType to) : old_(graph), to_(to), rebuild_(graph) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (node.op->leaf) {
        rebuild_.copy(node);
      } else if (node.op->name == "image_normalize") {
        Attributes attributes = node.attributes;
        attributes.set("to", std::string(name_of(to_)));
        emit(node, {rebuild_[node.inputs[0]], rebuild_[node.inputs[1]]}, std::move(attributes));
      } else {
        emit(node, operands(node), node.attributes);
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
    const Rule* const rule = rule_of(node.op->name);
    const bool lowered = rule != nullptr && applies(*rule, node);
    std::vector<Value> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Value value = rebuild_[node.inputs[i]];
      if (!value.valid()) {
        inputs.emplace_back();
        continue;
      }
      const bool activation =
          lowered && std::find(rule->activations.begin(), rule->activations.end(), i) !=
                         rule->activations.end();
      inputs.push_back(as(value, activation ? to_ : node.input(i).dtype));
    }
    return inputs;
  }

  bool applies(const Rule& rule, const Node& node) const {
    bool lowered = rule.begins;
    for (const std::size_t i : rule.activations) {
      const TensorType& type = rebuild_[node.inputs[i]].type();
      if (type.shape.rank() != 4 || (type.dtype != DType::f32 && type.dtype != to_)) {
        return false;
      }
      lowered = lowered || type.dtype == to_;
    }
    return lowered;
  }

  void emit(const Node& node, std::vector<Value> inputs, Attributes attributes) {
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

std::vector<std::size_t> lowered_operands(std::string_view op) {
  const Rule* const rule = rule_of(op);
  return rule != nullptr ? rule->activations : std::vector<std::size_t>{};
}

std::unique_ptr<Graph> lower_precision(const Graph& graph, DType to) {
  return writes_states(graph) ? Lowering(graph, to).run() : remove_dead(graph);
}

}  // namespace ftrain
