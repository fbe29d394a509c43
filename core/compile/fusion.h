// What the fusing passes share: a graph that is copied, but for runs of nodes that become one.
//
// A pass says with take() and emit_at() what becomes of which node, and hands out rebuilt(). For
// rewrite/fuse*.cpp alone.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "core/compile/fuse.h"
#include "core/compile/passes.h"
#include "core/ops/norm_chain.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {

class Fusion {
 protected:
  explicit Fusion(const Graph& old, TakenByKernels taken_by_kernels = {})
      : old_(old),
        rebuild_(old),
        taken_by_kernels_(std::move(taken_by_kernels)),
        uses_(uses_of(old)),
        actions_(uses_.size()) {
    for (const Graph::Named& fetch : old.fetches()) {
      fetched_.insert({fetch.value.node_index(), fetch.value.output()});
    }
    for (std::int32_t i = 0; i < old.size(); ++i) {
      for (const int input : written_inputs(old.node(i))) {
        const Value state = old.node(i).inputs[static_cast<std::size_t>(input)];
        writes_.emplace_back(state.node_index(), i);
      }
    }
  }

  std::unique_ptr<Graph> rebuilt() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const auto& action = actions_[static_cast<std::size_t>(i)];
      rebuild_.follow(old_.node(i));
      action ? action() : rebuild_.copy(old_.node(i));
    }
    return rebuild_.finish();
  }

  static bool is(const Node& node, const OpDef& op) { return node.op == &op; }
  static bool is(const Node& node, const NormChain& chain) {
    return node.op == &ops::def::norm_chain && NormChain::of(node) == chain;
  }
  static bool is(const Node& node, const NormChainGrad& chain) {
    return node.op == &ops::def::norm_chain_grad && NormChainGrad::of(node) == chain;
  }

  // Whether the kernels of fused norms take this activation.
  bool taken_by_kernels(const TensorType& x) const { return taken_by_kernels_(x); }

  // Whether a state that `node` reads is written after it and before `later`.
  bool written_between(const Node& node, const Node& later) const {
    return std::any_of(writes_.begin(), writes_.end(), [&](const auto& write) {
      if (write.second <= node.index || write.second >= later.index) return false;
      return std::any_of(node.inputs.begin(), node.inputs.end(), [&](const Value& input) {
        return input.valid() && input.node_index() == write.first;
      });
    });
  }

  // Whether `node` may be done where `end` stands: what uses it in between is `end` itself or takes
  // a different shape of it that nothing needs before `end`. The latter are appended to `moved`.
  bool can_wait(const Node& node, const Node& end, std::vector<const Node*>& moved) const {
    for (const auto& uses : uses_[static_cast<std::size_t>(node.index)]) {
      for (const std::int32_t use : uses) {
        if (use >= end.index) continue;
        const Node& user = old_.node(use);
        if ((!is(user, ops::def::reshape) && !is(user, ops::def::sum_groups)) || !free(user))
          return false;
        const auto& later = uses_at(first(user));
        if (std::any_of(later.begin(), later.end(), [&](auto i) { return i <= end.index; })) {
          return false;
        }
        moved.push_back(&user);
      }
    }
    return !written_between(node, end);
  }

  Value first(const Node& node) const { return {const_cast<Graph*>(&old_), node.index, 0}; }
  Value now(Value old) const { return rebuild_[old]; }
  ops::Moments moments(const Node& node, std::size_t i) const {
    return {now(node.inputs[i]), now(node.inputs[i + 1])};
  }
  // Output `output` of an old node becomes `to`.
  void map(const Node& node, std::int32_t output, Value to) {
    rebuild_.map(first(node).sibling(output), to);
  }

  const std::vector<std::int32_t>& uses_at(Value value) const {
    return uses_[static_cast<std::size_t>(value.node_index())]
                [static_cast<std::size_t>(value.output())];
  }
  bool fetched(Value value) const {
    return fetched_.count({value.node_index(), value.output()}) > 0;
  }

  // A node that belongs to a run is dropped, unless something is emitted in its place.
  bool free(const Node& node) const { return !actions_[static_cast<std::size_t>(node.index)]; }
  void take(const Node& node) {
    actions_[static_cast<std::size_t>(node.index)] = [] {};
  }
  // What becomes of `node`, and of the `moved` ones behind it.
  template <class F>
  void emit_at(const Node& node, F emit, const std::vector<const Node*>& moved = {}) {
    for (const Node* late : moved) take(*late);
    actions_[static_cast<std::size_t>(node.index)] = [this, emit, moved, &node] {
      const std::int32_t next = rebuild_.graph().size();
      emit();
      rebuild_.graph().node(next).name = node.name;
      for (const Node* late : moved) rebuild_.copy(*late);
    };
  }

  const Graph& old_;
  Rebuild rebuild_;

 private:
  TakenByKernels taken_by_kernels_;
  std::vector<std::vector<std::vector<std::int32_t>>> uses_;
  std::vector<std::function<void()>> actions_;  // by node; empty: copy it
  std::set<std::pair<std::int32_t, std::int32_t>> fetched_;
  std::vector<std::pair<std::int32_t, std::int32_t>> writes_;  // state, the node that writes it
};

// fuse.h's steps after the first. Each takes what the one before made.
std::unique_ptr<Graph> fuse_whole_norms(const Graph& graph, const TakenByKernels& taken);
std::unique_ptr<Graph> fuse_norm_pairs(const Graph& graph, const TakenByKernels& taken);

}  // namespace ftrain
