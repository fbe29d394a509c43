#include "core/graph/passes.h"

#include <cstdint>
#include <map>
#include <string>

#include "core/graph/opdef.h"

namespace ftrain {

void Rebuild::map(Value from, Value to) {
  const auto node = static_cast<std::size_t>(from.node_index());
  if (mapped_.size() <= node) mapped_.resize(static_cast<std::size_t>(old_.size()));
  auto& outputs = mapped_[node];
  const auto output = static_cast<std::size_t>(from.output());
  if (outputs.size() <= output) outputs.resize(output + 1);
  outputs[output] = to;
}

Value Rebuild::operator[](Value old) const {
  if (!old.valid()) return {};
  const auto node = static_cast<std::size_t>(old.node_index());
  const auto output = static_cast<std::size_t>(old.output());
  if (node >= mapped_.size() || output >= mapped_[node].size()) return {};
  return mapped_[node][output];
}

void Rebuild::copy(const Node& node) {
  const Value old(const_cast<Graph*>(&old_), node.index, 0);
  if (const Graph::State* state = old_.state_of(old)) {
    map(old, graph_->state(state->spec));
    return;
  }
  if (node.op->leaf) {
    map(old, graph_->input(node.name, node.outputs[0]));
    return;
  }
  std::vector<Value> inputs;
  for (const Value& input : node.inputs) inputs.push_back((*this)[input]);
  const Value made = graph_->emit(*node.op, std::move(inputs), node.attributes, node.name);
  // Types may carry a layout that infer does not know of.
  Node& copied = graph_->node(made.node_index());
  copied.outputs = node.outputs;
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    const auto output = static_cast<std::int32_t>(i);
    map(old.sibling(output), made.sibling(output));
  }
}

std::unique_ptr<Graph> Rebuild::finish() {
  for (const Graph::Named& fetch : old_.fetches()) graph_->fetch(fetch.name, (*this)[fetch.value]);
  return std::move(graph_);
}

std::vector<std::vector<std::vector<std::int32_t>>> uses_of(const Graph& graph) {
  std::vector<std::vector<std::vector<std::int32_t>>> uses(static_cast<std::size_t>(graph.size()));
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    uses[static_cast<std::size_t>(i)].resize(graph.node(i).outputs.size());
    for (const Value& input : graph.node(i).inputs) {
      if (!input.valid()) continue;
      uses[static_cast<std::size_t>(input.node_index())][static_cast<std::size_t>(input.output())]
          .push_back(i);
    }
  }
  return uses;
}

std::unique_ptr<Graph> remove_dead(const Graph& graph) {
  std::vector<char> alive(static_cast<std::size_t>(graph.size()), 0);
  for (const Graph::Named& fetch : graph.fetches()) {
    alive[static_cast<std::size_t>(fetch.value.node_index())] = 1;
  }
  for (std::int32_t i = graph.size(); i-- > 0;) {
    const Node& node = graph.node(i);
    char& mark = alive[static_cast<std::size_t>(i)];
    if (node.op->leaf || !written_inputs(node).empty()) mark = 1;
    if (!mark) continue;
    for (const Value& input : node.inputs) {
      if (input.valid()) alive[static_cast<std::size_t>(input.node_index())] = 1;
    }
  }
  Rebuild rebuild(graph);
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (alive[static_cast<std::size_t>(i)]) rebuild.copy(graph.node(i));
  }
  return rebuild.finish();
}

std::unique_ptr<Graph> merge_common(const Graph& graph) {
  Rebuild rebuild(graph);
  // Two nodes with one key compute the same. A state's version counts the writes before the node.
  // The key holds new inputs, so whole equal subtrees merge.
  std::map<std::string, std::int32_t> seen;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> version;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    const std::vector<int> written = written_inputs(node);
    if (node.op->leaf || node.op->collective || !written.empty()) {
      rebuild.copy(node);
      for (const int w : written) {
        const Value state = node.inputs[static_cast<std::size_t>(w)];
        ++version[{state.node_index(), state.output()}];
      }
      continue;
    }
    std::string key = std::to_string(reinterpret_cast<std::uintptr_t>(node.op));
    for (const Value& input : node.inputs) {
      const Value now = rebuild[input];
      key += '|' + std::to_string(now.node_index()) + '.' + std::to_string(now.output());
      if (const auto it = version.find({input.node_index(), input.output()}); it != version.end()) {
        key += 'v' + std::to_string(it->second);
      }
    }
    for (const auto& [name, value] : node.attributes.list()) {
      key += '|' + name + '=';
      if (const auto* payload = std::get_if<std::shared_ptr<const Payload>>(&value)) {
        key += std::to_string(reinterpret_cast<std::uintptr_t>(payload->get()));
      } else {
        key += Attributes({{name, value}}).text();
      }
    }
    for (const TensorType& type : node.outputs) key += '|' + type.text();
    const auto [it, is_new] = seen.emplace(key, i);
    if (is_new) {
      rebuild.copy(node);
      continue;
    }
    auto* old = const_cast<Graph*>(&graph);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const auto output = static_cast<std::int32_t>(o);
      rebuild.map({old, i, output}, rebuild[Value(old, it->second, output)]);
    }
  }
  return rebuild.finish();
}

std::unique_ptr<Graph> advance_collectives(const Graph& graph) {
  Rebuild rebuild(graph);
  for (std::int32_t i = 0; i < graph.size(); ++i) rebuild.copy(graph.node(i));
  return rebuild.finish();
}

}  // namespace ftrain
