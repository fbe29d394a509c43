#include "core/compile/passes.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "ftrain/graph/opdef.h"

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

void Rebuild::follow(const Node& node) {
  graph_->set_stage(node.stage);
}

void Rebuild::copy(const Node& node) {
  const Value old(const_cast<Graph*>(&old_), node.index, 0);
  if (const Graph::State* state = old_.state_of(old)) {
    follow(node);
    map(old, graph_->state(state->spec));
    return;
  }
  if (node.op->leaf) {
    follow(node);
    map(old, graph_->input(node.name, node.outputs[0]));
    return;
  }
  std::vector<Value> inputs;
  for (const Value& input : node.inputs) inputs.push_back((*this)[input]);
  follow(node);
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

bool writes_states(const Graph& graph) {
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (!written_inputs(graph.node(i)).empty()) return true;
  }
  return false;
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
    if (node.op->leaf || is_collective(node) || !written.empty()) {
      rebuild.copy(node);
      for (const int w : written) {
        const Value state = node.inputs[static_cast<std::size_t>(w)];
        ++version[{state.node_index(), state.output()}];
      }
      continue;
    }
    std::string key = std::to_string(reinterpret_cast<std::uintptr_t>(node.op)) + '@' +
                      std::to_string(node.stage.micro_batch);
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

namespace {

// The nodes that advance: collectives, and light ones whose every user advances.
std::vector<char> advancing_nodes(const Graph& graph) {
  const auto uses = uses_of(graph);
  std::vector<char> advances(static_cast<std::size_t>(graph.size()), 0);
  for (const Graph::Named& fetch : graph.fetches()) {
    advances[static_cast<std::size_t>(fetch.value.node_index())] = 2;  // for others too
  }
  for (std::int32_t i = graph.size(); i-- > 0;) {
    const Node& node = graph.node(i);
    char& mine = advances[static_cast<std::size_t>(i)];
    bool all = is_collective(node) || (node.op->light && mine == 0);
    if (all && !is_collective(node)) {
      for (const auto& users : uses[static_cast<std::size_t>(i)]) {
        all = all && !users.empty() && std::all_of(users.begin(), users.end(), [&](auto user) {
                return advances[static_cast<std::size_t>(user)] == 1;
              });
      }
    }
    mine = all && written_inputs(node).empty() ? 1 : 0;
  }
  return advances;
}

Value owner_of(Value value) {
  while (value.node().op->view) value = value.node().inputs[0];
  return value;
}

// Whether one of the two writes what the other reads or writes.
bool share_a_written_state(const Node& a, const Node& b) {
  const auto writes_for = [](const Node& writer, const Node& other) {
    const std::vector<int> written = written_inputs(writer);
    return std::any_of(written.begin(), written.end(), [&](int w) {
      const Value state = writer.inputs[static_cast<std::size_t>(w)];
      return std::any_of(other.inputs.begin(), other.inputs.end(), [&](const Value& input) {
        return input.valid() && owner_of(input) == state;
      });
    });
  };
  return writes_for(a, b) || writes_for(b, a);
}

bool needs_collective(const Node& node) {
  return std::any_of(node.inputs.begin(), node.inputs.end(), [](const Value& input) {
    return input.valid() && is_collective(owner_of(input).node());
  });
}

}  // namespace

std::unique_ptr<Graph> advance_collectives(const Graph& graph) {
  const std::vector<char> advances = advancing_nodes(graph);
  // Behind which node each one stands: its own place, or that of the last that it needs, be it a
  // write of a state that it reads.
  std::vector<std::int32_t> place(advances.size());
  std::map<std::int32_t, std::int32_t> written;  // the last write of a state so far
  std::vector<std::vector<std::int32_t>> followers(advances.size());
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    const auto n = static_cast<std::size_t>(i);
    place[n] = i;
    if (advances[n]) {
      place[n] = 0;
      for (const Value& input : node.inputs) {
        if (!input.valid()) continue;
        place[n] = std::max(place[n], place[static_cast<std::size_t>(input.node_index())]);
        if (const auto it = written.find(owner_of(input).node_index()); it != written.end()) {
          place[n] = std::max(place[n], it->second);
        }
      }
      followers[static_cast<std::size_t>(place[n])].push_back(i);
    }
    for (const int w : written_inputs(node)) {
      written[node.inputs[static_cast<std::size_t>(w)].node_index()] = i;
    }
  }
  // A write that needs a collective's result, and that nothing waits for, is put off: the nodes
  // behind it need not wait either.
  Rebuild rebuild(graph);
  std::vector<const Node*> put_off;
  const auto emit = [&](const Node& node) {
    const auto last = std::find_if(put_off.rbegin(), put_off.rend(), [&](const Node* earlier) {
      return share_a_written_state(*earlier, node);
    });
    const auto first_kept = last.base();
    for (auto it = put_off.begin(); it != first_kept; ++it) rebuild.copy(**it);
    put_off.erase(put_off.begin(), first_kept);
    if (node.outputs.empty() && needs_collective(node))
      put_off.push_back(&node);
    else
      rebuild.copy(node);
  };
  for (std::size_t n = 0; n < advances.size(); ++n) {
    if (!advances[n]) emit(graph.node(static_cast<std::int32_t>(n)));
    for (const std::int32_t follower : followers[n]) emit(graph.node(follower));
  }
  for (const Node* const node : put_off) rebuild.copy(*node);
  return rebuild.finish();
}

}  // namespace ftrain
