#include "ftrain/ops/scalars.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

std::vector<TensorType> infer_scalar(const Node& node) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    require(node.input(i).shape.rank() == 0, node, "every operand must be a scalar");
  }
  return {{node.inputs.empty() ? DType::f32 : node.input(0).dtype, Shape{}}};
}

}  // namespace

namespace ops::def {

const OpDef clip_coefficient{
    .name = "clip_coefficient", .infer = infer_scalar, .operands = "squared_norm"};
const OpDef all_finite{.name = "all_finite", .infer = infer_scalar, .operands = "scalar ..."};

std::vector<TensorType> infer_loss_scale(const Node& node) {
  infer_scalar(node);
  return {};
}
const OpDef update_loss_scale{.name = "update_loss_scale",
                              .infer = infer_loss_scale,
                              .writes =
                                  [](const Node&) {
                                    return std::vector<int>{0, 1};
                                  },
                              .operands = "scale steps ok",
                              .concern = Concern::update};
const OpDef constant{.name = "constant", .infer = infer_scalar};

}  // namespace ops::def

namespace ops {

Value clip_coefficient(Value squared_norm, double limit) {
  return squared_norm.graph().emit(def::clip_coefficient, {squared_norm}, {{"limit", limit}});
}
Value all_finite(std::vector<Value> scalars) {
  Graph& graph = scalars.at(0).graph();
  return graph.emit(def::all_finite, std::move(scalars));
}
void update_loss_scale(Value scale, Value steps, Value ok, const LossScale& options) {
  scale.graph().emit(
      def::update_loss_scale, {scale, steps, ok},
      {{"growth", options.growth}, {"backoff", options.backoff}, {"interval", options.interval}});
}
Value constant(Graph& graph, double value) {
  return graph.emit(def::constant, {}, {{"value", value}});
}

}  // namespace ops
}  // namespace ftrain
