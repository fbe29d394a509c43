#include "plugins/devices/cpu/rewrite/fold.h"

#include <algorithm>
#include <set>
#include <utility>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/folded/ops.h"

namespace ftrain::cpu {
namespace {

bool is(const Node& node, const OpDef& op) {
  return node.op == &op;
}

class Folding {
 public:
  explicit Folding(const Graph& old)
      : old_(old),
        rebuild_(old),
        uses_(uses_of(old)),
        taken_(static_cast<std::size_t>(old.size())),
        run_ending_at_(static_cast<std::size_t>(old.size()), -1) {
    for (const Graph::Named& fetch : old.fetches()) {
      fetched_.insert({fetch.value.node_index(), fetch.value.output()});
    }
  }

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      if (is(old_.node(i), ops::def::conv2d)) match(old_.node(i));
    }
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const auto n = static_cast<std::size_t>(i);
      if (run_ending_at_[n] >= 0)
        emit(runs_[static_cast<std::size_t>(run_ending_at_[n])]);
      else if (!taken_[n])
        rebuild_.copy(old_.node(i));
    }
    return rebuild_.finish();
  }

 private:
  // A convolution with what is folded into it.
  struct Run {
    const Node* convolution = nullptr;
    const Node *before = nullptr, *behind = nullptr;  // batch norms
    const Node *prelu = nullptr, *add = nullptr;
    Value other;
    const Node* last = nullptr;
  };

  void match(const Node& convolution) {
    if (convolution.input(0).dtype != DType::f32 || !is_state(convolution.inputs[1])) return;
    Run run;
    run.convolution = run.last = &convolution;
    const Value x = convolution.inputs[0];
    if (is_norm(x.node()) && free(x.node()) && only_user(x) == &convolution) {
      run.before = &x.node();
    }
    const Node* next = only_user(first(convolution));
    if (next != nullptr && is_norm(*next)) run.behind = run.last = next;
    if (run.before == nullptr && run.behind == nullptr) return;
    next = only_user(first(*run.last));
    if (next != nullptr && is(*next, ops::def::prelu) && is_state(next->inputs[1])) {
      run.prelu = run.last = next;
    }
    match_add(run);
    for (const Node* node : {run.convolution, run.before, run.behind, run.prelu, run.add}) {
      if (node != nullptr) taken_[static_cast<std::size_t>(node->index)] = true;
    }
    run_ending_at_[static_cast<std::size_t>(run.last->index)] =
        static_cast<std::int32_t>(runs_.size());
    runs_.push_back(run);
  }

  void match_add(Run& run) const {
    const Value y = first(*run.last);
    const Node* const add = only_user(y);
    if (add == nullptr || !is(*add, ops::def::add) || !free(*add)) return;
    run.other = add->inputs[add->inputs[0] == y ? 1 : 0];
    run.add = run.last = add;
  }

  void emit(const Run& run) {
    const Node& c = *run.convolution;
    const ops::Conv2d options{c.attributes.integer("stride"), c.attributes.integer("padding"),
                              c.attributes.integer("groups")};
    const Value x = rebuild_[run.before != nullptr ? run.before->inputs[0] : c.inputs[0]];
    const Value weight = rebuild_[c.inputs[1]];
    const FoldedNorm before = folded(run.before), behind = folded(run.behind);
    const Value y = conv2d_folded(x, fold_weight(weight, before, behind, options.groups),
                                  fold_bias(weight, before, behind, x.shape(), options),
                                  run.prelu != nullptr ? rebuild_[run.prelu->inputs[1]] : Value(),
                                  run.add != nullptr ? rebuild_[run.other] : Value(), options);
    rebuild_.graph().node(y.node_index()).name = c.name;
    rebuild_.map(first(*run.last), y);
  }

  FoldedNorm folded(const Node* norm) {
    if (norm == nullptr) return {};
    return fold_norm(rebuild_[norm->inputs[1]], rebuild_[norm->inputs[2]],
                     rebuild_[norm->inputs[3]], rebuild_[norm->inputs[4]],
                     norm->attributes.number("eps"));
  }

  bool free(const Node& node) const { return !taken_[static_cast<std::size_t>(node.index)]; }
  bool is_state(Value value) const { return old_.state_of(value) != nullptr; }

  bool is_norm(const Node& node) const {
    return is(node, ops::def::batch_norm_fixed) &&
           std::all_of(node.inputs.begin() + 1, node.inputs.end(),
                       [&](const Value& input) { return is_state(input); });
  }

  // The node that alone uses a value, once; nullptr when there are others, or it is fetched.
  const Node* only_user(Value value) const {
    const auto& users = uses_[static_cast<std::size_t>(value.node_index())]
                             [static_cast<std::size_t>(value.output())];
    if (users.size() != 1 || fetched_.count({value.node_index(), value.output()}) > 0) {
      return nullptr;
    }
    return &old_.node(users[0]);
  }

  Value first(const Node& node) const { return {const_cast<Graph*>(&old_), node.index, 0}; }

  const Graph& old_;
  Rebuild rebuild_;
  std::vector<std::vector<std::vector<std::int32_t>>> uses_;
  std::vector<bool> taken_;                  // by node: part of a run
  std::vector<std::int32_t> run_ending_at_;  // by node; -1: none
  std::vector<Run> runs_;
  std::set<std::pair<std::int32_t, std::int32_t>> fetched_;
};

}  // namespace

std::unique_ptr<Graph> fold(const Graph& graph, const KernelEnvironment&) {
  if (writes_states(graph)) return remove_dead(graph);
  return remove_dead(*Folding(graph).run());
}

}  // namespace ftrain::cpu
