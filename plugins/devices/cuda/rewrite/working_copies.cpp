#include "plugins/devices/cuda/rewrite/working_copies.h"

#include <map>
#include <set>
#include <string_view>

#include "core/compile/cached.h"
#include "core/compile/merge_updates.h"
#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain::cuda {
namespace {

// Kernels of convolutions in groups read f32 weights: there are few of them.
bool is_dense(const Node& convolution) {
  return convolution.attributes.integer("groups") == 1;
}

// Whether the node reads its input 1, a weight in f32, in the 16 bits of its input 0.
bool reads_copy(const Node& node) {
  if (node.op != &ops::def::conv2d && node.op != &ops::def::conv2d_input_grad) return false;
  const DType activations = node.input(0).dtype;
  return (activations == DType::bf16 || activations == DType::f16) &&
         node.input(1).dtype == DType::f32 && is_dense(node);
}

Value owner_of(Value value) {
  while (value.node().op->view) value = value.node().inputs[0];
  return value;
}

class Pass {
 public:
  explicit Pass(const Graph& old) : old_(old), rebuild_(old) {}

  Rewritten run() {
    find_weights();
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (reads_copy(node))
        convolution(node);
      else if (node.op == &ops::def::optimizer_update)
        update(node);
      else if (node.op == &ops::def::optimizer_update_many)
        update_many(node);
      else
        copy(node);
    }
    Rewritten made{rebuild_.finish(), {}};
    if (copies_.empty()) return made;
    made.kept.resize(static_cast<std::size_t>(made.graph->size()), false);
    for (const auto& [weight, value] : copies_) {
      made.kept[static_cast<std::size_t>(value.node_index())] = true;
    }
    return made;
  }

 private:
  // Old states: what convolutions read in 16 bits, without what others than optimizers write.
  void find_weights() {
    std::set<std::int32_t> changed;
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (reads_copy(node)) {
        const Value weight = owner_of(node.inputs[1]);
        if (old_.state_of(weight)) wanted_.emplace(weight.node_index(), node.input(0).dtype);
      }
      if (node.op == &ops::def::optimizer_update || node.op == &ops::def::optimizer_update_many) {
        continue;
      }
      for (const int w : written_inputs(node)) {
        changed.insert(node.inputs[static_cast<std::size_t>(w)].node_index());
      }
    }
    for (const std::int32_t state : changed) wanted_.erase(state);
  }

  // A copy stands where its weight does, before everything that reads or writes either.
  void copy(const Node& node) {
    rebuild_.copy(node);
    const auto wanted = wanted_.find(node.index);
    if (wanted == wanted_.end()) return;
    const Value made = ops::cast(rebuild_[first_of(node)], wanted->second);
    rebuild_.graph().node(made.node_index()).name = node.name;
    copies_.emplace(node.index, made);
  }

  void convolution(const Node& node) {
    const Value made = rebuild_.graph().emit(
        *node.op, {rebuild_[node.inputs[0]], narrowed(node.inputs[1], node.input(0).dtype)},
        node.attributes, node.name);
    rebuild_.graph().node(made.node_index()).outputs = node.outputs;
    rebuild_.map(first_of(node), made);
  }

  // The old weight in 16 bits: its copy, seen as the weight is seen, or a cast.
  Value narrowed(Value old, DType to) {
    const Value weight = owner_of(old);
    const auto found = copies_.find(weight.node_index());
    if (found == copies_.end()) return ops::cast(rebuild_[old], to);
    return seen_as(old, found->second);
  }
  Value seen_as(Value old, Value copy) {
    const Node& node = old.node();
    if (!node.op->view) return copy;
    const Value made = rebuild_.graph().emit(*node.op, {seen_as(node.inputs[0], copy)},
                                             node.attributes, node.name);
    TensorType& type = rebuild_.graph().node(made.node_index()).outputs[0];
    type = {copy.dtype(), old.shape(), old.type().layout};
    return made;
  }

  Value copy_of(Value parameter) const {
    const auto found = copies_.find(parameter.node_index());
    return found != copies_.end() ? found->second : Value();
  }

  std::vector<Value> now(std::vector<Value> values) const {
    for (Value& value : values) {
      if (value.valid()) value = rebuild_[value];
    }
    return values;
  }

  void update(const Node& node) {
    namespace at = update_operand;
    const Value kept = copy_of(node.inputs[at::parameter]);
    if (!kept.valid()) return copy(node);
    const std::vector<Value> in = now(node.inputs);
    emit({{in[at::parameter], in[at::gradient], {in.begin() + at::first_slot, in.end()}, kept}},
         {in[at::rate], in[at::coefficient], in[at::ok], in[at::step]}, node);
  }

  void update_many(const Node& node) {
    const ManyUpdates many(node);
    const std::vector<Value> in = now(node.inputs);
    std::vector<TensorUpdate> tensors;
    for (std::size_t t = 0; t < many.tensors; ++t) {
      const auto at = in.begin() + static_cast<std::ptrdiff_t>(many.parameter(t));
      tensors.push_back({at[0],
                         at[1],
                         {at + 2, at + 2 + static_cast<std::ptrdiff_t>(many.slots)},
                         copy_of(node.inputs[many.parameter(t)])});
    }
    emit(tensors, {in[many.rate], in[many.coefficient], in[many.ok], in[many.step]}, node);
  }

  struct Scalars {
    Value rate, coefficient, ok, step;
  };
  void emit(const std::vector<TensorUpdate>& tensors, const Scalars& scalars, const Node& like) {
    optimizer_update_many(tensors, scalars.rate, scalars.coefficient, scalars.ok, scalars.step,
                          like.attributes.payload_pointer("update"),
                          like.attributes.number("rate_factor"), like.attributes.number("decay"));
  }

  Value first_of(const Node& node) const { return {const_cast<Graph*>(&old_), node.index, 0}; }

  const Graph& old_;
  Rebuild rebuild_;
  std::map<std::int32_t, DType> wanted_;  // by old state
  std::map<std::int32_t, Value> copies_;  // by old state
};

}  // namespace

Rewritten add_working_copies(const Graph& graph) {
  if (writes_states(graph)) return Pass(graph).run();
  std::unique_ptr<Graph> same = remove_dead(graph);
  std::vector<bool> kept = kept_nodes(*same);
  return {std::move(same), std::move(kept)};
}

}  // namespace ftrain::cuda
