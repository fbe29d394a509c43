#include "plugins/devices/cpu/rewrite/layouts.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "core/graph/opdef.h"
#include "core/graph/passes.h"
#include "plugins/devices/cpu/layout.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/onednn/kernels.h"

namespace ftrain::cpu {
namespace {

// Ops whose operands need not share a layout.
constexpr std::string_view separate_ops[] = {"squared_norm", "all_reduce", "broadcast"};

bool may_be_blocked(const TensorType& type) {
  return (type.dtype == DType::f32 || type.dtype == DType::bf16) && type.shape.rank() == 4;
}

class Pass {
 public:
  Pass(const Graph& graph, const KernelList& kernels, const KernelEnvironment& environment,
       const StateStore* store)
      : old_(graph),
        kernels_(kernels),
        environment_(environment),
        store_(store),
        rebuild_(graph),
        block_(preferred_block(environment.isa)) {}

  std::unique_ptr<Graph> run() {
    find_updates();
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (node.op->leaf)
        leaf(node);
      else if (node.op->name == "conv2d")
        forward(node);
      else if (node.op->name == "conv2d_folded")
        folded(node);
      else if (node.op->name == "conv2d_input_grad")
        input_grad(node);
      else if (node.op->name == "conv2d_weight_grad")
        weight_grad(node);
      else
        other(node);
    }
    return rebuild_.finish();
  }

 private:
  // Slots by parameter, and the states that something else than an optimizer writes: those keep
  // the order in which their writers know them.
  void find_updates() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      const std::vector<int> written = written_inputs(node);
      const bool update = node.op->name == "optimizer_update";
      for (const int w : written) {
        const std::int32_t state = node.inputs[static_cast<std::size_t>(w)].node_index();
        if (!update)
          fixed_.insert(state);
        else if (w != 0)
          slots_[node.inputs[0].node_index()].push_back(state);
      }
    }
  }

  void leaf(const Node& node) {
    rebuild_.copy(node);
    const Value made = rebuild_[Value(const_cast<Graph*>(&old_), node.index, 0)];
    const Graph::State* state = rebuild_.graph().state_of(made);
    if (state == nullptr) return;
    if (const auto it = pending_.find(node.index); it != pending_.end()) {
      rebuild_.graph().set_layout(made, it->second);
    }
    if (store_ == nullptr) return;
    for (const StateStore::Entry& entry : store_->entries()) {
      if (entry.spec.name != state->spec.name) continue;
      rebuild_.graph().set_layout(made, entry.spec.type.layout);
      fixed_.insert(node.index);
    }
  }

  // The new value of an old one, as it lies.
  Value plain(Value old) {
    used_.insert(old.node_index());
    return rebuild_[old];
  }

  // A new value in the wanted layout.
  Value as(Value value, const std::string& layout) {
    if (value.type().layout == layout) return value;
    const auto key = std::tuple(value.node_index(), value.output(), layout);
    const auto found = reordered_.find(key);
    if (found != reordered_.end()) return found->second;
    const Value made = rebuild_.graph().emit(reorder_op, {value}, {{"layout", layout}});
    reordered_.emplace(key, made);
    return made;
  }

  // Emits a node like the old one with the new inputs; 4-D outputs get the layout.
  void emit(const Node& node, std::vector<Value> inputs, const std::string& layout) {
    const Value made =
        rebuild_.graph().emit(*node.op, std::move(inputs), node.attributes, node.name);
    Node& copy = rebuild_.graph().node(made.node_index());
    copy.outputs = with_layout(node, layout);
    map_outputs(node, made);
  }

  void map_outputs(const Node& node, Value made) {
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const auto output = static_cast<std::int32_t>(o);
      rebuild_.map({const_cast<Graph*>(&old_), node.index, output}, made.sibling(output));
    }
    // A reordered copy of a state is stale once the state is written.
    for (const int w : written_inputs(node)) {
      const Value state = rebuild_[node.inputs[static_cast<std::size_t>(w)]];
      std::erase_if(reordered_, [&](const auto& item) {
        return std::get<0>(item.first) == state.node_index();
      });
    }
  }

  std::vector<TensorType> with_layout(const Node& node, const std::string& layout) const {
    std::vector<TensorType> types = node.outputs;
    for (TensorType& type : types) {
      if (may_be_blocked(type)) type.layout = layout;
    }
    return types;
  }

  // ---- convolutions

  bool full(std::int64_t channels) const { return channels % block_ == 0; }

  // x and y as the convolution wants them. oneDNN reads images of up to 3 channels row-major.
  ConvolutionTypes wanted(const Node& node) const {
    ConvolutionTypes t = convolution_types(node);
    const bool image = t.groups == 1 && t.x.shape[1] <= 3;
    const bool fast = may_be_blocked(t.x) && full(t.y.shape[1]) && (full(t.x.shape[1]) || image);
    t.x.layout = fast && !image ? blocked_layout(block_) : row_major;
    t.y.layout = fast ? blocked_layout(block_) : row_major;
    return t;
  }

  void forward(const Node& node) {
    const ConvolutionTypes t = wanted(node);
    arrange_weight(node.inputs[1], t);
    const Value x = as(plain(node.inputs[0]), t.x.layout);
    emit(node, {x, weight(node.inputs[1])}, t.y.layout);
  }

  // Its weight is made once from states, so its order is free.
  void folded(const Node& node) {
    const ConvolutionTypes t = wanted(node);
    std::vector<Value> inputs{as(plain(node.inputs[0]), t.x.layout),
                              as(plain(node.inputs[1]), preferred_weight_layout(t))};
    for (std::size_t i = 2; i < node.inputs.size(); ++i) {
      const Value old = node.inputs[i];
      if (!old.valid())
        inputs.emplace_back();
      else
        inputs.push_back(as(plain(old), old.shape().rank() == 4 ? t.y.layout : row_major));
    }
    emit(node, std::move(inputs), t.y.layout);
  }

  void input_grad(const Node& node) {
    const ConvolutionTypes t = wanted(node);
    const Value dy = as(plain(node.inputs[0]), t.y.layout);
    emit(node, {dy, weight(node.inputs[1])}, t.x.layout);
  }

  void weight_grad(const Node& node) {
    const ConvolutionTypes t = wanted(node);
    const Value dy = as(plain(node.inputs[0]), t.y.layout);
    const Value x = as(plain(node.inputs[1]), t.x.layout);
    emit(node, {dy, x}, may_be_blocked(t.x) ? made_weight_layout(t) : row_major);
  }

  // States as they lie (the kernel rearranges inside where it must), other weights row-major.
  Value weight(Value old) {
    const Value now = plain(old);
    return old_.state_of(old) != nullptr ? now : as(now, row_major);
  }

  // The first convolution that uses a weight decides its order, while nothing else has used it.
  void arrange_weight(Value old, const ConvolutionTypes& types) {
    if (old_.state_of(old) == nullptr || !may_be_blocked(types.x)) return;
    std::vector<std::int32_t> states{old.node_index()};
    if (const auto it = slots_.find(old.node_index()); it != slots_.end()) {
      states.insert(states.end(), it->second.begin(), it->second.end());
    }
    const Value now = rebuild_[old];
    const bool known = fixed_.contains(old.node_index());
    std::string layout = now.type().layout;
    if (!known) {
      // All of them together or none: an update wants one order.
      for (const std::int32_t state : states) {
        if (fixed_.contains(state) || used_.contains(state)) return;
      }
      layout = preferred_weight_layout(types);
    }
    for (const std::int32_t state : states) {
      if (fixed_.contains(state) || used_.contains(state)) continue;
      pending_[state] = layout;
      const Value made = rebuild_[Value(const_cast<Graph*>(&old_), state, 0)];
      if (made.valid()) rebuild_.graph().set_layout(made, layout);
    }
  }

  // ---- everything else

  void other(const Node& node) {
    std::vector<Value> inputs;
    for (const Value& input : node.inputs) {
      inputs.push_back(input.valid() ? plain(input) : Value());
    }
    if (std::find(std::begin(separate_ops), std::end(separate_ops), node.op->name) !=
            std::end(separate_ops) &&
        keep(node, inputs)) {
      return;
    }
    const std::string layout = common_layout(node, inputs);
    if (!layout.empty() && !node.op->view && try_layout(node, inputs, layout)) return;
    const std::vector<int> written = written_inputs(node);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const bool is_written =
          std::find(written.begin(), written.end(), static_cast<int>(i)) != written.end();
      if (inputs[i].valid() && !is_written) inputs[i] = as(inputs[i], row_major);
    }
    emit(node, std::move(inputs), row_major);
  }

  // What the op writes cannot move, so it decides; else the first blocked operand.
  std::string common_layout(const Node& node, const std::vector<Value>& inputs) const {
    for (const int w : written_inputs(node)) {
      const Value value = inputs[static_cast<std::size_t>(w)];
      if (may_be_blocked(value.type())) return value.type().layout;
    }
    for (const Value& value : inputs) {
      if (value.valid() && !value.type().layout.empty()) return value.type().layout;
    }
    return row_major;
  }

  bool try_layout(const Node& node, const std::vector<Value>& inputs, const std::string& layout) {
    std::vector<Value> arranged;
    for (const Value& value : inputs) {
      if (!value.valid() || !may_be_blocked(value.type())) {
        arranged.push_back(value);
        continue;
      }
      TensorType type = value.type();
      type.layout = layout;
      if (!describe(type)) return false;
      arranged.push_back(as(value, layout));
    }
    const Node tried{node.op,   arranged,  node.attributes, with_layout(node, layout),
                     node.name, node.index};
    for (const TensorType& type : tried.outputs) {
      if (!type.layout.empty() && !describe(type)) return false;
    }
    if (!supported(tried)) return false;
    emit(node, std::move(arranged), layout);
    return true;
  }

  // Each operand in its own layout, and each output in that of the operand of its number.
  bool keep(const Node& node, const std::vector<Value>& inputs) {
    Node tried{node.op, inputs, node.attributes, node.outputs, node.name, node.index};
    for (std::size_t o = 0; o < tried.outputs.size(); ++o) {
      if (tried.outputs[o].shape == tried.input(o).shape) {
        tried.outputs[o].layout = tried.input(o).layout;
      }
    }
    if (!supported(tried)) return false;
    const Value made = rebuild_.graph().emit(*node.op, inputs, node.attributes, node.name);
    rebuild_.graph().node(made.node_index()).outputs = tried.outputs;
    map_outputs(node, made);
    return true;
  }

  bool supported(const Node& node) const {
    for (const KernelDef* def : kernels_.of(node.op->name)) {
      if (def->refuse == nullptr || def->refuse(node, environment_).empty()) return true;
    }
    return false;
  }

  const Graph& old_;
  const KernelList& kernels_;
  const KernelEnvironment& environment_;
  const StateStore* store_;
  Rebuild rebuild_;
  std::int64_t block_;
  std::map<std::int32_t, std::vector<std::int32_t>> slots_;  // old state -> old states
  std::set<std::int32_t> fixed_, used_;                      // old states; old nodes
  std::map<std::int32_t, std::string> pending_;              // old states met before their node
  std::map<std::tuple<std::int32_t, std::int32_t, std::string>, Value> reordered_;
};

}  // namespace

std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store) {
  return Pass(graph, kernels, environment, store).run();
}

}  // namespace ftrain::cpu
