#include "plugins/devices/cuda/rewrite/merge_running.h"

#include <algorithm>
#include <set>
#include <vector>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain::cuda {
namespace {

constexpr std::size_t ok = 4;  // of update_running's inputs

std::vector<TensorType> infer_many(const Node& node) {
  const ManyRunning many(node);
  require(node.inputs.size() == ManyRunning::at(many.norms) &&
              node.attributes.integers("counts").size() == many.norms,
          node, "every norm must have two statistics, two moments and a count");
  return {};
}

std::vector<int> writes_many(const Node& node) {
  std::vector<int> written;
  for (std::size_t n = 0; n < ManyRunning(node).norms; ++n) {
    const int first = static_cast<int>(ManyRunning::at(n));
    written.insert(written.end(), {first, first + 1});
  }
  return written;
}

std::vector<Value> decompose_many(Graph&, const Node& node) {
  for (std::size_t n = 0; n < ManyRunning(node).norms; ++n) {
    const Value* const in = &node.inputs[ManyRunning::at(n)];
    ops::update_running(in[0], in[1], {in[2], in[3]}, node.inputs[0],
                        node.attributes.number("momentum"), node.attributes.integers("counts")[n]);
  }
  return {};
}

const OpDef many_op{.name = "update_running_many",
                    .infer = infer_many,
                    .decomposition = decompose_many,
                    .writes = writes_many};

class Pass {
 public:
  explicit Pass(const Graph& old) : old_(old), rebuild_(old) {}

  // Updates wait until something stands in their way, or the graph ends.
  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (touches_written(node)) emit();
      if (node.op == &ops::def::update_running) {
        add(node);
      } else {
        rebuild_.copy(node);
      }
    }
    emit();
    return rebuild_.finish();
  }

 private:
  bool touches_written(const Node& node) const {
    return std::any_of(node.inputs.begin(), node.inputs.end(), [&](const Value& input) {
      return input.valid() && written_.contains(input.node_index());
    });
  }

  void add(const Node& node) {
    if (!group_.empty() && !alike(*group_.front(), node)) emit();
    group_.push_back(&node);
    for (const std::size_t i : {0u, 1u}) written_.insert(node.inputs[i].node_index());
  }

  static bool alike(const Node& a, const Node& b) {
    return a.inputs[ok] == b.inputs[ok] &&
           a.attributes.number("momentum") == b.attributes.number("momentum");
  }

  void emit() {
    if (group_.size() == 1) rebuild_.copy(*group_.front());
    if (group_.size() > 1) {
      const auto now = [&](const Node* node, std::size_t i) { return rebuild_[node->inputs[i]]; };
      std::vector<RunningUpdate> norms;
      for (const Node* const node : group_) {
        norms.push_back({now(node, 0),
                         now(node, 1),
                         {now(node, 2), now(node, 3)},
                         node->attributes.integer("count")});
      }
      update_running_many(norms, now(group_.front(), ok),
                          group_.front()->attributes.number("momentum"));
    }
    group_.clear();
    written_.clear();
  }

  const Graph& old_;
  Rebuild rebuild_;
  std::vector<const Node*> group_;
  std::set<std::int32_t> written_;  // old states, by the group
};

}  // namespace

void update_running_many(const std::vector<RunningUpdate>& norms, Value ok, double momentum) {
  std::vector<Value> inputs{ok};
  std::vector<std::int64_t> counts;
  for (const RunningUpdate& norm : norms) {
    inputs.insert(inputs.end(), {norm.mean, norm.variance, norm.batch.mean, norm.batch.variance});
    counts.push_back(norm.count);
  }
  ok.graph().emit(many_op, std::move(inputs),
                  {{"momentum", momentum}, {"counts", std::move(counts)}});
}

std::unique_ptr<Graph> merge_running(const Graph& graph) {
  return Pass(graph).run();
}

}  // namespace ftrain::cuda
