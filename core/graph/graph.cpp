#include "ftrain/graph/graph.h"

#include <algorithm>
#include <stdexcept>

#include "ftrain/base/suggest.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {
namespace {

// Leaves carry their type in the node that makes them; infer is never asked.
const OpDef input_op{.name = "input", .infer = nullptr, .leaf = true};
const OpDef state_op{.name = "state", .infer = nullptr, .leaf = true};

std::string handle(Value value) {
  std::string text = "%" + std::to_string(value.node_index());
  if (value.output() > 0 || value.node().outputs.size() > 1) {
    text += "." + std::to_string(value.output());
  }
  return text;
}

// Then a device may keep it from run to run, as it keeps the states.
bool is_made_of_states(Value value) {
  const Node& node = value.node();
  return !node.op->leaf && !node.inputs.empty() &&
         std::all_of(node.inputs.begin(), node.inputs.end(), [](Value input) {
           return input.valid() && input.graph().state_of(input) != nullptr;
         });
}

}  // namespace

const Node& Value::node() const {
  return graph_->node(node_);
}
const TensorType& Value::type() const {
  return node().outputs[static_cast<std::size_t>(output_)];
}

void require(bool holds, const Node& node, std::string_view rule) {
  if (holds) return;
  std::vector<std::string> types;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const std::string type = node.inputs[i].valid() ? node.input(i).text() : "none";
    types.push_back(node.op->operands.empty() ? type : operand_name(*node.op, i) + " " + type);
  }
  std::string message = std::string(node.op->name);
  if (!node.name.empty()) message += " '" + node.name + "'";
  message += ": " + std::string(rule) + "; got " + join(types);
  if (const std::string attributes = node.attributes.text(); !attributes.empty()) {
    message += " with " + attributes;
  }
  throw ShapeError(message);
}

std::string operand_name(const OpDef& op, std::size_t i) {
  std::string_view rest = op.operands, last;
  for (std::size_t at = 0; !rest.empty(); ++at) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view name = rest.substr(0, end);
    if (name == "...") return std::string(last);
    if (at == i) return std::string(name);
    last = name;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return "operand " + std::to_string(i);
}

OpCost cost_of(const Node& node) {
  if (node.op->cost != nullptr) return node.op->cost(node);
  OpCost cost;
  if (node.op->leaf || node.op->view) return cost;
  for (const Value& input : node.inputs) {
    if (input.valid()) cost.bytes += static_cast<double>(input.type().bytes());
  }
  for (const TensorType& output : node.outputs) cost.bytes += static_cast<double>(output.bytes());
  for (const int w : written_inputs(node)) {
    cost.bytes += static_cast<double>(node.input(static_cast<std::size_t>(w)).bytes());
  }
  return cost;
}

Value Graph::emit(const OpDef& op, std::vector<Value> inputs, Attributes attributes,
                  std::string name) {
  Node node;
  node.op = &op;
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
  node.name = std::move(name);
  node.index = size();
  node.stage = stage_;
  for (const Value& input : node.inputs) {
    if (input.valid() && &input.graph() != this) {
      throw std::logic_error(std::string(op.name) + ": an input belongs to another graph");
    }
  }
  node.outputs = op.infer(node);
  for (const int i : written_inputs(node)) {
    const Value written = node.inputs[static_cast<std::size_t>(i)];
    if (state_of(written) == nullptr && !is_made_of_states(written)) {
      throw std::logic_error(std::string(op.name) +
                             ": only states can be written, and what is made of states alone");
    }
  }
  nodes_.push_back(std::move(node));
  return {this, size() - 1, 0};
}

Value Graph::input(std::string name, TensorType type) {
  nodes_.push_back({&input_op, {}, {}, {std::move(type)}, name, size(), stage_});
  const Value value(this, size() - 1, 0);
  inputs_.push_back({std::move(name), value});
  return value;
}

Value Graph::state(StateSpec spec) {
  if (find_state(spec.name).valid()) {
    throw std::logic_error("state '" + spec.name + "' exists twice");
  }
  nodes_.push_back({&state_op, {}, {}, {spec.type}, spec.name, size(), stage_});
  const Value value(this, size() - 1, 0);
  states_.push_back({std::move(spec), value});
  return value;
}

void Graph::fetch(std::string name, Value value) {
  fetches_.push_back({std::move(name), value});
}

const Graph::State* Graph::state_of(Value value) const {
  if (!value.valid() || value.node().op != &state_op) return nullptr;
  for (const State& state : states_) {
    if (state.value == value) return &state;
  }
  return nullptr;
}

Value Graph::find_state(std::string_view name) const {
  for (const State& state : states_) {
    if (state.spec.name == name) return state.value;
  }
  return {};
}

void Graph::set_layout(Value value, std::string layout) {
  for (State& state : states_) {
    if (state.value == value) state.spec.type.layout = layout;
  }
  node(value.node_index()).outputs[0].layout = std::move(layout);
}

std::string Graph::text() const {
  std::string text;
  for (const Node& node : nodes_) {
    text += "%" + std::to_string(node.index) + " = " + std::string(node.op->name);
    if (node.op->leaf) {
      text += " " + node.name;
    } else {
      std::vector<std::string> inputs;
      for (const Value& input : node.inputs) {
        inputs.push_back(input.valid() ? handle(input) : "none");
      }
      text += "(" + join(inputs, ", ", "") + ")";
      if (const std::string attributes = node.attributes.text(); !attributes.empty()) {
        text += " " + attributes;
      }
      if (!node.name.empty()) text += " '" + node.name + "'";
    }
    std::vector<std::string> outputs;
    for (const TensorType& type : node.outputs) outputs.push_back(type.text());
    text += " -> " + join(outputs, ", ") + "\n";
  }
  for (const Named& fetch : fetches_) {
    text += "fetch " + fetch.name + " = " + handle(fetch.value) + "\n";
  }
  return text;
}

}  // namespace ftrain
