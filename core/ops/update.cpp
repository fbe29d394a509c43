#include "ftrain/ops/update.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

// Inputs: parameter, gradient, rate, ok, coefficient (may be invalid), slots...
std::vector<TensorType> infer_update(const Node& node) {
  require(node.input(0).shape == node.input(1).shape, node,
          "the gradient must have the parameter's shape");
  for (std::size_t i = 5; i < node.inputs.size(); ++i) {
    require(node.input(i).shape == node.input(0).shape, node,
            "slots must have the parameter's shape");
  }
  return {};
}

std::vector<int> writes_update(const Node& node) {
  std::vector<int> written{0};
  for (std::size_t i = 5; i < node.inputs.size(); ++i) written.push_back(static_cast<int>(i));
  return written;
}

}  // namespace

namespace ops::def {

const OpDef optimizer_update{.name = "optimizer_update",
                             .infer = infer_update,
                             .writes = writes_update,
                             .operands = "parameter gradient rate ok coefficient slot ...",
                             .ordering = Ordering::update,
                             .concern = Concern::update};

}  // namespace ops::def

void ops::optimizer_update(Value parameter, std::vector<Value> slots, Value gradient, Value rate,
                           Value coefficient, Value ok, std::shared_ptr<const Payload> update,
                           double rate_factor, double decay) {
  std::vector<Value> inputs{parameter, gradient, rate, ok, coefficient};
  inputs.insert(inputs.end(), slots.begin(), slots.end());
  Graph& graph = parameter.graph();
  graph.emit(ops::def::optimizer_update, std::move(inputs),
             {{"update", std::move(update)}, {"rate_factor", rate_factor}, {"decay", decay}},
             parameter.node().name);
}

}  // namespace ftrain
