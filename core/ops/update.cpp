#include "ftrain/ops/update.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

namespace at = update_operand;

std::vector<TensorType> infer_update(const Node& node) {
  const Shape& parameter = node.input(at::parameter).shape;
  require(node.input(at::gradient).shape == parameter, node,
          "the gradient must have the parameter's shape");
  for (std::size_t i = at::first_slot; i < node.inputs.size(); ++i) {
    require(node.input(i).shape == parameter, node, "slots must have the parameter's shape");
  }
  if (node.inputs[at::step].valid()) {
    require(node.input(at::step) == TensorType{DType::i64, {}}, node,
            "the step must be an i64 scalar");
  }
  return {};
}

std::vector<int> writes_update(const Node& node) {
  std::vector<int> written{static_cast<int>(at::parameter)};
  for (std::size_t i = at::first_slot; i < node.inputs.size(); ++i) {
    written.push_back(static_cast<int>(i));
  }
  return written;
}

std::vector<TensorType> infer_assign(const Node& node) {
  require(node.input(0) == node.input(1), node, "state and value must have one type and shape");
  require(node.input(2).shape.rank() == 0, node, "ok must be a scalar");
  return {};
}

}  // namespace

namespace ops::def {

const OpDef optimizer_update{.name = "optimizer_update",
                             .infer = infer_update,
                             .writes = writes_update,
                             .operands = "parameter gradient rate ok coefficient step slot ...",
                             .ordering = Ordering::update,
                             .concern = Concern::update};
const OpDef assign{.name = "assign",
                   .infer = infer_assign,
                   .writes = [](const Node&) { return std::vector<int>{0}; },
                   .operands = "state value ok",
                   .concern = Concern::update};

}  // namespace ops::def

void ops::optimizer_update(Value parameter, std::vector<Value> slots, Value gradient, Value rate,
                           Value coefficient, Value ok, Value step,
                           std::shared_ptr<const Payload> update, double rate_factor,
                           double decay) {
  std::vector<Value> inputs{parameter, gradient, rate, ok, coefficient, step};
  inputs.insert(inputs.end(), slots.begin(), slots.end());
  Graph& graph = parameter.graph();
  graph.emit(ops::def::optimizer_update, std::move(inputs),
             {{"update", std::move(update)}, {"rate_factor", rate_factor}, {"decay", decay}},
             parameter.node().name);
}

void ops::assign(Value state, Value value, Value ok) {
  state.graph().emit(ops::def::assign, {state, value, ok}, {}, state.node().name);
}

}  // namespace ftrain
