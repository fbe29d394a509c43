#include "ftrain/graph/gradients.h"

#include <dlfcn.h>

#include <string>

#include "ftrain/base/error.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops/elementwise.h"

namespace ftrain {
namespace {

// The library in which the op is defined: " of /usr/lib/ftrain/gelu.so".
std::string origin(const OpDef& op) {
  Dl_info its{};
  if (!dladdr(reinterpret_cast<const void*>(&op), &its) || its.dli_fname == nullptr) return {};
  return std::string(" of ") + its.dli_fname;
}

[[noreturn]] void refuse(const Node& node) {
  std::string message = "op '" + std::string(node.op->name) + "'";
  if (!node.name.empty()) message += " at '" + node.name + "'";
  throw PluginError(message + origin(*node.op) +
                    " has no gradient, and one is wanted of what it is made of. Its definition has "
                    "to name a vjp; or nothing that is trained may lie behind it.");
}

}  // namespace

std::vector<Value> gradients(Graph& graph, std::span<const Seed> seeds,
                             std::span<const Value> targets) {
  const EmitIn backward(graph, Phase::backward);
  const auto nodes = static_cast<std::size_t>(graph.size());
  const auto index = [](Value v) { return static_cast<std::size_t>(v.node_index()); };

  // Only nodes between the targets and the seeds take part.
  std::vector<char> wanted(nodes, 0);
  for (const Value& target : targets) wanted[index(target)] = 1;
  for (std::size_t i = 0; i < nodes; ++i) {
    for (const Value& input : graph.node(static_cast<std::int32_t>(i)).inputs) {
      if (input.valid() && wanted[index(input)]) wanted[i] = 1;
    }
  }

  std::vector<std::vector<Value>> gradient(nodes);
  const auto accumulate = [&](Value value, Value more) {
    auto& of_node = gradient[index(value)];
    of_node.resize(value.node().outputs.size());
    Value& sum = of_node[static_cast<std::size_t>(value.output())];
    sum = sum.valid() ? ops::add(sum, more) : more;
  };
  std::size_t last = 0;
  for (const Seed& seed : seeds) {
    accumulate(seed.value, seed.gradient);
    last = std::max(last, index(seed.value));
  }

  for (std::size_t i = last + 1; i-- > 0;) {
    const Node& node = graph.node(static_cast<std::int32_t>(i));
    if (!wanted[i] || gradient[i].empty() || node.op->leaf) continue;
    if (node.op->vjp == nullptr) refuse(node);
    const std::vector<Value> inputs = node.op->vjp(graph, node, gradient[i]);
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      if (inputs[k].valid() && wanted[index(node.inputs[k])]) accumulate(node.inputs[k], inputs[k]);
    }
  }

  std::vector<Value> result;
  for (const Value& target : targets) {
    const auto& of_node = gradient[index(target)];
    result.push_back(of_node.empty() ? Value()
                                     : of_node[static_cast<std::size_t>(target.output())]);
  }
  return result;
}

}  // namespace ftrain
