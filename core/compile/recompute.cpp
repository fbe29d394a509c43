#include "core/compile/recompute.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

bool is(const Node& node, const OpDef& op) {
  return node.op == &op;
}

bool is_backward(const Node& node) {
  return node.stage.phase == Phase::backward;
}

// Where the micro-batches of a step begin and, last, where the graph ends.
std::vector<std::int32_t> parts_of(const Graph& graph) {
  std::vector<std::int32_t> begins{0};
  std::int32_t micro_batch = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->leaf || node.stage.micro_batch == micro_batch) continue;
    micro_batch = node.stage.micro_batch;
    begins.push_back(i);
  }
  begins.push_back(graph.size());
  return begins;
}

// The forward part of a part of a step, and what of it the backward part uses.
struct Walk {
  const Graph& graph;
  std::int32_t begin, border;  // the first nodes of the forward and of the backward part
  std::vector<std::vector<std::vector<std::int32_t>>> uses;
  std::set<std::int32_t>
      changing;  // states that are written while the backward part runs, or before

  Walk(const Graph& g, std::size_t part)
      : graph(g), begin(parts_of(g)[part]), border(g.size()), uses(uses_of(g)) {
    std::int32_t end = 0;
    for (std::int32_t i = begin; i < g.size(); ++i) {
      if (!is_backward(g.node(i))) continue;
      border = std::min(border, i);
      end = i;
    }
    for (std::int32_t i = 0; i < end; ++i) {
      for (const int w : written_inputs(g.node(i))) {
        changing.insert(g.node(i).inputs[static_cast<std::size_t>(w)].node_index());
      }
    }
  }

  // Never done twice: states would be written twice or be others by then, ranks would meet twice,
  // batch moments are costly to make and small to keep, and parts begin with slices.
  bool once_only(const Node& node) const {
    return node.op->leaf || is_collective(node) || node.op->recompute == Recompute::never ||
           !written_inputs(node).empty() ||
           std::any_of(node.inputs.begin(), node.inputs.end(), [&](const Value& input) {
             return input.valid() && changing.contains(input.node_index());
           });
  }
};

// By node: may the backward part make its first output again?
using Again = std::vector<char>;

// `sparingly`: only where the convolutions behind them take far longer.
Again cheap_ones(const Walk& walk, bool sparingly) {
  Again again(static_cast<std::size_t>(walk.graph.size()), 0);
  const auto at = [&](Value value) -> char& {
    return again[static_cast<std::size_t>(value.node_index())];
  };
  const auto passes_over_memory = [&](const Node& node) {
    return !walk.once_only(node) && node.op->recompute == Recompute::cheap &&
           node.outputs[0].shape.rank() == 4;
  };
  for (std::int32_t i = walk.begin; i < walk.border; ++i) {
    const Node& node = walk.graph.node(i);
    if (!passes_over_memory(node)) continue;
    bool wanted = false;
    for (const std::int32_t use : walk.uses[static_cast<std::size_t>(i)][0]) {
      const Node& user = walk.graph.node(use);
      wanted |= user.op->outlasts_recompute != nullptr && user.op->outlasts_recompute(user);
    }
    if (sparingly && !wanted) continue;
    at(Value(const_cast<Graph*>(&walk.graph), i, 0)) = 1;
    // What it is made of stays where PReLU's gradient keeps it; a batch norm's output z is not
    // stored for that (fused kernels make z from x), nor is what only this one uses.
    for (const Value& input : node.inputs) {
      if (input.valid() && is(input.node(), ops::def::batch_norm) &&
          passes_over_memory(input.node())) {
        at(input) = 1;
      }
    }
  }
  return again;
}

// A place between two forward nodes that only one value crosses.
struct Cut {
  std::int32_t node;  // the first node behind it
  Value value;
};

std::vector<Cut> cuts_of(const Walk& walk) {
  std::vector<Cut> cuts;
  std::vector<Value> alive;
  for (std::int32_t i = walk.begin; i < walk.border; ++i) {
    std::erase_if(alive, [&](Value value) {
      const auto& uses = walk.uses[static_cast<std::size_t>(value.node_index())]
                                  [static_cast<std::size_t>(value.output())];
      return std::none_of(uses.begin(), uses.end(),
                          [&](std::int32_t use) { return use >= i && use < walk.border; });
    });
    // Fused kernels do not store what a batch norm makes: before it is the better place.
    if (alive.size() == 1 && alive[0].shape().rank() == 4 &&
        !is(alive[0].node(), ops::def::batch_norm) && !is(alive[0].node(), ops::def::prelu)) {
      cuts.push_back({i, alive[0]});
    }
    const Node& node = walk.graph.node(i);
    if (walk.once_only(node)) continue;
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      alive.emplace_back(const_cast<Graph*>(&walk.graph), i, static_cast<std::int32_t>(o));
    }
  }
  return cuts;
}

// Everything between cuts, where a segment ends at the first cut behind `limit` bytes.
Again segments(const Walk& walk, const std::vector<Cut>& cuts, std::size_t limit) {
  Again again(static_cast<std::size_t>(walk.graph.size()), 0);
  std::int32_t begin = walk.begin;
  const auto close = [&](std::int32_t end, std::optional<Value> kept) {
    for (std::int32_t i = begin; i < end; ++i) {
      again[static_cast<std::size_t>(i)] = !walk.once_only(walk.graph.node(i));
    }
    if (kept) again[static_cast<std::size_t>(kept->node_index())] = 0;
    begin = end;
  };
  std::size_t bytes = 0;
  std::int32_t counted = walk.begin;
  for (const Cut& cut : cuts) {
    for (; counted < cut.node; ++counted) {
      for (const TensorType& type : walk.graph.node(counted).outputs) bytes += type.bytes();
    }
    if (bytes < limit) continue;
    close(cut.node, cut.value);
    bytes = 0;
  }
  // Behind the last cut the backward part begins at once: nothing would be gained.
  return again;
}

class Pass {
 public:
  // `cheap` values are made once more for the backward nodes alone, each time that they are wanted
  // there, so that no copy waits for them through a segment.
  Pass(const Walk& walk, const Again& again, const Again& cheap)
      : walk_(walk), again_(again), cheap_(cheap), rebuild_(walk.graph) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < walk_.graph.size(); ++i) {
      const Node& node = walk_.graph.node(i);
      rebuild_.follow(node);
      i < walk_.border ? rebuild_.copy(node) : backward(node);
    }
    return remove_dead(*rebuild_.finish());
  }

 private:
  // Copies of old nodes by what they are for: the new copy's first output.
  enum class Purpose { forward, backward };
  using Copies = std::map<std::int32_t, Value>;

  // A node with what it uses of the forward part made anew.
  void backward(const Node& node) {
    std::vector<std::pair<Value, Value>> kept;
    for (const Value& input : node.inputs) {
      if (!input.valid() || !made_again(input) || stays(node, input)) continue;
      const Value copy = remake(input, Purpose::backward);
      kept.emplace_back(input, rebuild_[input]);
      rebuild_.map(input, copy);
    }
    rebuild_.copy(node);
    for (const auto& [old, now] : kept) rebuild_.map(old, now);
  }

  bool marked(const Again& set, Value value) const {
    return set[static_cast<std::size_t>(value.node_index())] != 0;
  }
  bool made_again(Value value) const {
    return value.node_index() < walk_.border && (marked(again_, value) || marked(cheap_, value));
  }

  // PReLU's gradient at z = batch_norm(x) is fused with the batch norm's: z is made from x there.
  // So z belongs to the same x as the batch norm's gradient.
  bool stays(const Node& node, Value input) const {
    return is(node, ops::def::prelu_grad) && is(input.node(), ops::def::batch_norm) &&
           !made_again(input.node().inputs[0]);
  }

  Value remake(Value old, Purpose purpose) {
    const bool cheap = marked(cheap_, old);
    // A copy of what is not cheap serves all; so do its inputs, which die where it is made.
    if (!cheap) purpose = Purpose::forward;
    Copies& made = made_[purpose == Purpose::backward ? 1 : 0];
    const auto key = old.node_index();
    if (const auto it = made.find(key); it != made.end()) return it->second.sibling(old.output());
    const Node& node = old.node();
    std::vector<Value> inputs;
    for (const Value& input : node.inputs) {
      const bool again =
          input.valid() && input.node_index() < walk_.border &&
          (marked(again_, input) || (purpose == Purpose::backward && marked(cheap_, input)));
      inputs.push_back(again ? remake(input, purpose) : rebuild_[input]);
    }
    const Value copy =
        rebuild_.graph().emit(*node.op, std::move(inputs), node.attributes, node.name);
    rebuild_.graph().node(copy.node_index()).outputs = node.outputs;
    made.emplace(key, copy);
    return copy.sibling(old.output());
  }

  const Walk& walk_;
  const Again& again_;
  const Again& cheap_;
  Rebuild rebuild_;
  Copies made_[2];
};

// The most bytes that are alive at once during a part, as the plain graph tells: batch norms that a
// PReLU or an addition follows count nothing, since fused kernels never store them.
std::size_t most_alive(const Graph& graph, std::size_t part) {
  const auto uses = uses_of(graph);
  std::vector<std::int64_t> change(static_cast<std::size_t>(graph.size()) + 1, 0);
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->leaf || node.op->view) continue;
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const auto& users = uses[static_cast<std::size_t>(i)][o];
      if (users.empty()) continue;
      const Node& first = graph.node(users[0]);
      if (is(node, ops::def::batch_norm) &&
          (is(first, ops::def::prelu) || is(first, ops::def::add)))
        continue;
      const auto bytes = static_cast<std::int64_t>(node.outputs[o].bytes());
      change[static_cast<std::size_t>(i)] += bytes;
      change[static_cast<std::size_t>(users.back()) + 1] -= bytes;
    }
  }
  const std::vector<std::int32_t> parts = parts_of(graph);
  std::int64_t alive = 0, most = 0;
  for (std::int32_t i = 0; i < parts[part + 1]; ++i) {
    alive += change[static_cast<std::size_t>(i)];
    if (i >= parts[part]) most = std::max(most, alive);
  }
  return static_cast<std::size_t>(most);
}

std::unique_ptr<Graph> by_block(const Walk& walk, std::size_t part) {
  const std::vector<Cut> cuts = cuts_of(walk);
  const Again cheap = cheap_ones(walk, false);
  std::size_t total = 0;
  for (std::int32_t i = walk.begin; i < walk.border; ++i) {
    for (const TensorType& type : walk.graph.node(i).outputs) total += type.bytes();
  }
  std::unique_ptr<Graph> best;
  std::size_t least = 0;
  // From a segment for every cut to two segments, in steps of a third.
  for (double parts = static_cast<double>(cuts.size()); parts >= 2; parts /= 1.33) {
    const auto limit = static_cast<std::size_t>(static_cast<double>(total) / parts);
    const Again again = segments(walk, cuts, limit);
    Again cheap_and_again = cheap;
    for (std::size_t i = 0; i < again.size(); ++i) cheap_and_again[i] &= again[i];
    auto graph = Pass(walk, again, cheap_and_again).run();
    const std::size_t most = most_alive(*graph, part);
    if (!best || most < least) {
      best = std::move(graph);
      least = most;
    }
  }
  return best ? std::move(best) : remove_dead(walk.graph);
}

}  // namespace

std::unique_ptr<Graph> recompute(const Graph& graph, const std::string& policy) {
  auto made = remove_dead(graph);
  if (policy == "none") return made;
  const std::size_t parts = parts_of(*made).size() - 1;
  for (std::size_t part = 0; part < parts; ++part) {
    const Walk walk(*made, part);
    if (walk.border == made->size()) continue;
    if (policy == "block") {
      made = by_block(walk, part);
    } else {
      const Again none(static_cast<std::size_t>(made->size()), 0);
      made = Pass(walk, none, cheap_ones(walk, true)).run();
    }
  }
  return made;
}

}  // namespace ftrain
