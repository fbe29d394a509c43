#include "core/compile/merge_updates.h"

#include <algorithm>
#include <set>
#include <vector>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {

ManyUpdates::ManyUpdates(const Node& node)
    : tensors(static_cast<std::size_t>(node.attributes.integer("tensors"))),
      slots((node.inputs.size() - first_tensor) / tensors -
            (node.attributes.has("copies") ? 3 : 2)),
      copies(node.attributes.has("copies")) {}

namespace {

namespace single = update_operand;
constexpr std::size_t most_slots = 8;

std::vector<TensorType> infer_many(const Node& node) {
  const ManyUpdates many(node);
  require(many.parameter(many.tensors) + (many.copies ? many.tensors : 0) == node.inputs.size(),
          node, "every tensor must have a gradient and the same number of slots");
  for (std::size_t t = 0; t < many.tensors; ++t) {
    for (std::size_t i = 0; i < 1 + many.slots; ++i) {
      require(node.input(many.parameter(t) + 1 + i).shape == node.input(many.parameter(t)).shape,
              node, "gradient and slots must have the parameter's shape");
    }
    if (!many.copies || !node.inputs[many.copy(t)].valid()) continue;
    const TensorType &copy = node.input(many.copy(t)), &parameter = node.input(many.parameter(t));
    require(copy.shape == parameter.shape && copy.layout == parameter.layout, node,
            "a copy must have the parameter's shape and order");
  }
  return {};
}

std::vector<int> writes_many(const Node& node) {
  const ManyUpdates many(node);
  std::vector<int> written;
  for (std::size_t t = 0; t < many.tensors; ++t) {
    const int parameter = static_cast<int>(many.parameter(t));
    written.push_back(parameter);
    for (int s = 0; s < static_cast<int>(many.slots); ++s) written.push_back(parameter + 2 + s);
    if (many.copies && node.inputs[many.copy(t)].valid()) {
      written.push_back(static_cast<int>(many.copy(t)));
    }
  }
  return written;
}

std::vector<Value> decompose_many(Graph&, const Node& node) {
  const ManyUpdates many(node);
  for (std::size_t t = 0; t < many.tensors; ++t) {
    const auto at = node.inputs.begin() + static_cast<std::ptrdiff_t>(many.parameter(t));
    ops::optimizer_update(at[0], {at + 2, at + 2 + static_cast<std::ptrdiff_t>(many.slots)}, at[1],
                          node.inputs[many.rate], node.inputs[many.coefficient],
                          node.inputs[many.ok], node.inputs[many.step],
                          node.attributes.payload_pointer("update"),
                          node.attributes.number("rate_factor"), node.attributes.number("decay"));
  }
  return {};
}

}  // namespace

namespace ops::def {
const OpDef optimizer_update_many{.name = "optimizer_update_many",
                                  .infer = infer_many,
                                  .decomposition = decompose_many,
                                  .writes = writes_many,
                                  .operands = "rate ok coefficient step tensor ...",
                                  .ordering = Ordering::separate,
                                  .concern = Concern::update};
}  // namespace ops::def

namespace {

// What the kernel of many takes.
bool mergeable(const Node& node) {
  if (node.op != &ops::def::optimizer_update ||
      node.inputs.size() > single::first_slot + most_slots) {
    return false;
  }
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid() || i == single::step) continue;
    if (node.input(i).dtype != DType::f32) return false;
    if (single::is_tensor(i) && node.input(i).layout != node.input(0).layout) return false;
  }
  return true;
}

bool alike(const Node& a, const Node& b) {
  return a.attributes == b.attributes && a.inputs.size() == b.inputs.size() &&
         std::equal(a.inputs.begin() + single::rate, a.inputs.begin() + single::first_slot,
                    b.inputs.begin() + single::rate);
}

class Pass {
 public:
  explicit Pass(const Graph& old) : old_(old), rebuild_(old) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (mergeable(node)) {
        add(node);
        continue;
      }
      if (!node.op->leaf) emit();
      rebuild_.copy(node);
    }
    emit();
    return rebuild_.finish();
  }

 private:
  // To the group that it is like. What was written in the run is written once, and never a
  // gradient.
  void add(const Node& node) {
    std::set<std::int32_t> states;
    for (const int w : written_inputs(node)) {
      states.insert(node.inputs[static_cast<std::size_t>(w)].node_index());
    }
    const bool again = std::any_of(node.inputs.begin(), node.inputs.end(), [&](const Value& v) {
      return v.valid() && written_.contains(v.node_index());
    });
    if (again) emit();
    written_.insert(states.begin(), states.end());
    for (auto& group : groups_) {
      if (alike(*group.front(), node)) {
        group.push_back(&node);
        return;
      }
    }
    groups_.push_back({&node});
  }

  void emit() {
    for (const auto& group : groups_) {
      if (group.size() == 1) {
        rebuild_.copy(*group.front());
        continue;
      }
      const Node& first = *group.front();
      rebuild_.follow(first);
      std::vector<TensorUpdate> tensors;
      for (const Node* const node : group) {
        TensorUpdate& tensor = tensors.emplace_back(TensorUpdate{
            now(node->inputs[single::parameter]), now(node->inputs[single::gradient]), {}, {}});
        for (std::size_t i = single::first_slot; i < node->inputs.size(); ++i) {
          tensor.slots.push_back(now(node->inputs[i]));
        }
      }
      optimizer_update_many(
          tensors, now(first.inputs[single::rate]), now(first.inputs[single::coefficient]),
          now(first.inputs[single::ok]), now(first.inputs[single::step]),
          first.attributes.payload_pointer("update"), first.attributes.number("rate_factor"),
          first.attributes.number("decay"));
    }
    groups_.clear();
    written_.clear();
  }

  Value now(Value old) const { return old.valid() ? rebuild_[old] : Value(); }

  const Graph& old_;
  Rebuild rebuild_;
  std::vector<std::vector<const Node*>> groups_;
  std::set<std::int32_t> written_;  // old states, by the groups
};

}  // namespace

void optimizer_update_many(const std::vector<TensorUpdate>& tensors, Value rate, Value coefficient,
                           Value ok, Value step, std::shared_ptr<const Payload> update,
                           double rate_factor, double decay) {
  std::vector<Value> inputs{rate, ok, coefficient, step};
  for (const TensorUpdate& tensor : tensors) {
    inputs.insert(inputs.end(), {tensor.parameter, tensor.gradient});
    inputs.insert(inputs.end(), tensor.slots.begin(), tensor.slots.end());
  }
  Attributes attributes{{"update", std::move(update)},
                        {"rate_factor", rate_factor},
                        {"decay", decay},
                        {"tensors", static_cast<std::int64_t>(tensors.size())}};
  if (std::any_of(tensors.begin(), tensors.end(),
                  [](const TensorUpdate& tensor) { return tensor.copy.valid(); })) {
    for (const TensorUpdate& tensor : tensors) inputs.push_back(tensor.copy);
    attributes.set("copies", true);
  }
  rate.graph().emit(ops::def::optimizer_update_many, std::move(inputs), std::move(attributes));
}

std::unique_ptr<Graph> merge_updates(const Graph& graph) {
  return Pass(graph).run();
}

}  // namespace ftrain
