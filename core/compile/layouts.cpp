#include "core/compile/layouts.h"

#include <algorithm>

namespace ftrain {
namespace {

const std::string row_major;

Value operand(const Node& node, int i) {
  return node.inputs[static_cast<std::size_t>(i)];
}

std::vector<TensorType> infer_reorder(const Node& node) {
  TensorType type = node.input(0);
  type.layout = node.attributes.text("layout");
  return {type};
}

std::vector<Value> same_elements(Graph&, const Node& node) {
  return {node.inputs[0]};
}

}  // namespace

const OpDef reorder_op{.name = "reorder", .infer = infer_reorder, .decomposition = same_elements};
const OpDef relabel_op{
    .name = "relabel", .infer = infer_reorder, .decomposition = same_elements, .view = true};

LayoutPass::LayoutPass(const Graph& graph, const KernelList& kernels,
                       const KernelEnvironment& environment, const StateStore* store)
    : old_(graph), kernels_(kernels), environment_(environment), store_(store), rebuild_(graph) {}

LayoutPass::~LayoutPass() = default;

bool LayoutPass::same_bytes(const TensorType&, const std::string&) const {
  return false;
}
bool LayoutPass::arrange(const Node&) {
  return false;
}

bool LayoutPass::may_be_arranged(const TensorType& type) {
  return is_floating(type.dtype) && type.dtype != DType::f64 && type.shape.rank() == 4;
}

std::unique_ptr<Graph> LayoutPass::run() {
  find_updates();
  for (std::int32_t i = 0; i < old_.size(); ++i) {
    const Node& node = old_.node(i);
    rebuild_.follow(node);
    if (node.op->leaf)
      leaf(node);
    else if (arrange(node))
      continue;
    else if (node.op->convolution != nullptr)
      convolution(node);
    else
      other(node);
  }
  return rebuild_.finish();
}

// Slots by parameter, and the states that something else than an optimizer writes: those keep
// the order in which their writers know them.
void LayoutPass::find_updates() {
  for (std::int32_t i = 0; i < old_.size(); ++i) {
    const Node& node = old_.node(i);
    const bool update = node.op->ordering == Ordering::update;
    for (const int w : written_inputs(node)) {
      const std::int32_t state = node.inputs[static_cast<std::size_t>(w)].node_index();
      if (!update)
        fixed_.insert(state);
      else if (w != 0)
        slots_[node.inputs[0].node_index()].push_back(state);
    }
  }
}

void LayoutPass::leaf(const Node& node) {
  rebuild_.copy(node);
  const Value made = rebuild_[first(node.index)];
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

Value LayoutPass::plain(Value old) {
  used_.insert(old.node_index());
  return rebuild_[old];
}

Value LayoutPass::as(Value value, const std::string& layout) {
  if (value.type().layout == layout) return value;
  const auto key = std::tuple(value.node_index(), value.output(), layout);
  const auto found = reordered_.find(key);
  if (found != reordered_.end()) return found->second;
  const OpDef& op = same_bytes(value.type(), layout) ? relabel_op : reorder_op;
  const Value made = rebuild_.graph().emit(op, {value}, {{"layout", layout}});
  reordered_.emplace(key, made);
  return made;
}

void LayoutPass::emit(const Node& node, std::vector<Value> inputs, const std::string& layout) {
  const Value made = rebuild_.graph().emit(*node.op, std::move(inputs), node.attributes, node.name);
  rebuild_.graph().node(made.node_index()).outputs = with_layout(node, layout);
  map_outputs(node, made);
}

void LayoutPass::map_outputs(const Node& node, Value made) {
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const auto output = static_cast<std::int32_t>(o);
    rebuild_.map(first(node.index).sibling(output), made.sibling(output));
  }
  // A reordered copy of a state is stale once the state is written.
  for (const int w : written_inputs(node)) {
    const Value state = rebuild_[node.inputs[static_cast<std::size_t>(w)]];
    std::erase_if(reordered_,
                  [&](const auto& item) { return std::get<0>(item.first) == state.node_index(); });
  }
}

std::vector<TensorType> LayoutPass::with_layout(const Node& node, const std::string& layout) const {
  std::vector<TensorType> types = node.outputs;
  for (TensorType& type : types) {
    if (may_be_arranged(type)) type.layout = layout;
  }
  return types;
}

// ---- convolutions

void LayoutPass::convolution(const Node& node) {
  const ConvolutionRoles& roles = *node.op->convolution;
  if (roles.y == ConvolutionRoles::result)
    forward(node);
  else if (roles.x == ConvolutionRoles::result)
    input_grad(node);
  else
    weight_grad(node);
}

void LayoutPass::forward(const Node& node) {
  const Images wanted = images(node);
  const ConvolutionRoles& roles = *node.op->convolution;
  arrange_weight(operand(node, roles.weight), node);
  std::vector<Value> inputs(2);
  inputs[static_cast<std::size_t>(roles.x)] = as(plain(operand(node, roles.x)), wanted.x);
  inputs[static_cast<std::size_t>(roles.weight)] = weight(operand(node, roles.weight));
  emit(node, std::move(inputs), wanted.y);
}

void LayoutPass::input_grad(const Node& node) {
  const Images wanted = images(node);
  const ConvolutionRoles& roles = *node.op->convolution;
  std::vector<Value> inputs(2);
  inputs[static_cast<std::size_t>(roles.y)] = as(plain(operand(node, roles.y)), wanted.y);
  inputs[static_cast<std::size_t>(roles.weight)] = weight(operand(node, roles.weight));
  emit(node, std::move(inputs), wanted.x);
}

void LayoutPass::weight_grad(const Node& node) {
  const Images wanted = images(node);
  const ConvolutionRoles& roles = *node.op->convolution;
  const Value x = as(plain(operand(node, roles.x)), wanted.x);
  std::vector<Value> inputs(2);
  inputs[static_cast<std::size_t>(roles.y)] = as(plain(operand(node, roles.y)), wanted.y);
  inputs[static_cast<std::size_t>(roles.x)] = x;
  emit(node, std::move(inputs), may_be_arranged(x.type()) ? made_weight(node) : row_major);
}

// States as they lie (the kernel rearranges inside where it must), other weights row-major.
Value LayoutPass::weight(Value old) {
  const Value now = plain(old);
  return old_.state_of(old) != nullptr ? now : as(now, row_major);
}

// The first convolution that uses a weight decides its order, while nothing else has used it.
void LayoutPass::arrange_weight(Value old, const Node& convolution) {
  if (old_.state_of(old) == nullptr || !may_be_arranged(convolution.input(0))) return;
  std::vector<std::int32_t> states{old.node_index()};
  if (const auto it = slots_.find(old.node_index()); it != slots_.end()) {
    states.insert(states.end(), it->second.begin(), it->second.end());
  }
  const Value now = rebuild_[old];
  std::string layout = now.type().layout;
  if (!fixed_.contains(old.node_index())) {
    // All of them together or none: an update wants one order.
    for (const std::int32_t state : states) {
      if (fixed_.contains(state) || used_.contains(state)) return;
    }
    layout = kept_weight(convolution);
  }
  for (const std::int32_t state : states) {
    if (fixed_.contains(state) || used_.contains(state)) continue;
    pending_[state] = layout;
    const Value made = rebuild_[first(state)];
    if (made.valid()) rebuild_.graph().set_layout(made, layout);
  }
}

// ---- everything else

void LayoutPass::other(const Node& node) {
  std::vector<Value> inputs;
  for (const Value& input : node.inputs) {
    inputs.push_back(input.valid() ? plain(input) : Value());
  }
  if (node.op->ordering == Ordering::separate && keep(node, inputs)) return;
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

// What the op writes cannot move, so it decides; else the first operand that is not row-major.
std::string LayoutPass::common_layout(const Node& node, const std::vector<Value>& inputs) const {
  for (const int w : written_inputs(node)) {
    const Value value = inputs[static_cast<std::size_t>(w)];
    if (may_be_arranged(value.type())) return value.type().layout;
  }
  for (const Value& value : inputs) {
    if (value.valid() && !value.type().layout.empty()) return value.type().layout;
  }
  return row_major;
}

bool LayoutPass::try_layout(const Node& node, const std::vector<Value>& inputs,
                            const std::string& layout) {
  std::vector<Value> arranged;
  for (const Value& value : inputs) {
    if (!value.valid() || !may_be_arranged(value.type())) {
      arranged.push_back(value);
      continue;
    }
    TensorType type = value.type();
    type.layout = layout;
    if (!exists(type)) return false;
    arranged.push_back(as(value, layout));
  }
  const Node tried{node.op,   arranged,   node.attributes, with_layout(node, layout),
                   node.name, node.index, node.stage};
  for (const TensorType& type : tried.outputs) {
    if (!type.layout.empty() && !exists(type)) return false;
  }
  if (!supported(tried)) return false;
  emit(node, std::move(arranged), layout);
  return true;
}

// Each operand in its own layout, and each output in that of the operand of its number.
bool LayoutPass::keep(const Node& node, const std::vector<Value>& inputs) {
  Node tried{node.op, inputs, node.attributes, node.outputs, node.name, node.index, node.stage};
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

bool LayoutPass::supported(const Node& node) const {
  for (const KernelDef* def : kernels_.of(node.op->name)) {
    if (def->refuse == nullptr || def->refuse(node, environment_).empty()) return true;
  }
  return false;
}

}  // namespace ftrain
