// Graph to graph.
//
// A pass rebuilds: it walks the old graph in order and emits into a new one. Rebuild keeps the map
// between them, so a device's own rewrites need only say what they do differently.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

class FTRAIN_API Rebuild {
 public:
  explicit Rebuild(const Graph& old) : old_(old), graph_(std::make_unique<Graph>()) {}

  const Graph& old() const { return old_; }
  Graph& graph() { return *graph_; }

  // Copies a node as it is (leaves too) with its inputs mapped.
  void copy(const Node& node);
  // What is emitted from now on stands in the stage of this old node.
  void follow(const Node& node);
  // From now on uses of old `from` become new `to`.
  void map(Value from, Value to);
  // What an old value became; invalid while it has not become anything.
  Value operator[](Value old) const;

  // Carries the fetches over and hands the new graph out.
  std::unique_ptr<Graph> finish();

 private:
  const Graph& old_;
  std::unique_ptr<Graph> graph_;
  std::vector<std::vector<Value>> mapped_;
};

// Whether the program changes a state; one that does not is an evaluation.
FTRAIN_API bool writes_states(const Graph& graph);

// For every node, the indices of the nodes that use each of its outputs, in order (repeated when a
// node uses it twice); fetches do not count.
FTRAIN_API std::vector<std::vector<std::vector<std::int32_t>>> uses_of(const Graph& graph);

// Drops nodes that neither a fetch nor a write depends on. Leaves stay: they are the interface.
FTRAIN_API std::unique_ptr<Graph> remove_dead(const Graph& graph);

// Merges nodes of one micro-batch with equal op, attributes and inputs, unless a state among the
// inputs is written in between. Nodes that write or communicate are never merged.
FTRAIN_API std::unique_ptr<Graph> merge_common(const Graph& graph);

// Moves every collective up to right behind what it needs, in the order in which their inputs are
// ready, with additions that serve collectives alone: a device that runs them beside its kernels
// then overlaps the two. The order is a function of the graph's structure, the same on every rank.
FTRAIN_API std::unique_ptr<Graph> advance_collectives(const Graph& graph);

}  // namespace ftrain
