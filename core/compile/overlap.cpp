#include "core/compile/overlap.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "ftrain/graph/opdef.h"

namespace ftrain {

bool Touched::meets(const Touched& other) const {
  const auto overlap = [](const std::vector<Range>& a, const std::vector<Range>& b) {
    return std::any_of(a.begin(), a.end(), [&](const Range& mine) {
      return std::any_of(b.begin(), b.end(), [&](const Range& theirs) {
        return std::less<>()(mine.begin, theirs.end) && std::less<>()(theirs.begin, mine.end);
      });
    });
  };
  return overlap(writes, other.writes) || overlap(writes, other.reads) ||
         overlap(reads, other.writes);
}

Touched touched_by(const Program& program, const Node& node, const AddressOf& address,
                   const char* arena) {
  Touched touched;
  const auto add = [](std::vector<Touched::Range>& ranges, const char* begin, std::size_t bytes) {
    if (bytes > 0) ranges.push_back({begin, begin + bytes});
  };
  for (const Value& input : node.inputs) {
    if (input.valid()) add(touched.reads, address(input), input.type().bytes());
  }
  for (const int w : written_inputs(node)) {
    const Value& state = node.inputs[static_cast<std::size_t>(w)];
    add(touched.writes, address(state), state.type().bytes());
  }
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const Value output(program.graph.get(), node.index, static_cast<std::int32_t>(o));
    add(touched.writes, address(output), node.outputs[o].bytes());
  }
  const Block& scratch = program.plan.scratch[static_cast<std::size_t>(node.index)];
  if (scratch.home == Block::Home::arena)
    add(touched.writes, arena + scratch.offset, scratch.bytes);
  return touched;
}

// Collectives run in order, so a launch that waits for one has waited for all before it.
std::vector<std::size_t> waits_of(const std::vector<BesideLaunch>& launches) {
  std::vector<std::size_t> waits(launches.size(), 0);
  std::vector<const Touched*> collectives;
  std::size_t waited = 0;
  for (std::size_t i = 0; i < launches.size(); ++i) {
    if (launches[i].beside) {
      collectives.push_back(&launches[i].touched);
      continue;
    }
    for (std::size_t k = collectives.size(); k > waited; --k) {
      if (!launches[i].touched.meets(*collectives[k - 1])) continue;
      waited = k;
      waits[i] = k;
    }
  }
  return waits;
}

std::vector<std::int32_t> first_waits(const Graph& graph) {
  std::vector<std::int32_t> first(static_cast<std::size_t>(graph.size()));
  std::iota(first.begin(), first.end(), 0);
  // Of each collective the first kernel among its users, views aside.
  std::vector<std::int32_t> user(first.size(), graph.size());
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->view || is_collective(node)) continue;
    for (Value input : node.inputs) {
      if (!input.valid()) continue;
      while (input.node().op->view) input = input.node().inputs[0];
      std::int32_t& mine = user[static_cast<std::size_t>(input.node_index())];
      mine = std::min(mine, i);
    }
  }
  std::int32_t next = graph.size();
  for (std::int32_t i = graph.size(); i-- > 0;) {
    if (!is_collective(graph.node(i))) continue;
    next = std::min(next, user[static_cast<std::size_t>(i)]);
    first[static_cast<std::size_t>(i)] = next;
  }
  return first;
}

}  // namespace ftrain
