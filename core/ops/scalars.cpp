#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

std::vector<TensorType> infer_scalar(const Node& node) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    require(node.input(i).shape.rank() == 0, node, "every operand must be a scalar");
  }
  return {{node.inputs.empty() ? DType::f32 : node.input(0).dtype, Shape{}}};
}

const OpDef clip_op{.name = "clip_coefficient", .infer = infer_scalar};
const OpDef finite_op{.name = "all_finite", .infer = infer_scalar};
const OpDef sqrt_op{.name = "sqrt", .infer = infer_scalar};
const OpDef reciprocal_op{.name = "reciprocal", .infer = infer_scalar};

std::vector<TensorType> infer_loss_scale(const Node& node) {
  infer_scalar(node);
  return {};
}
const OpDef loss_scale_op{
    .name = "update_loss_scale", .infer = infer_loss_scale, .writes = [](const Node&) {
      return std::vector<int>{0, 1};
    }};
const OpDef constant_op{.name = "constant", .infer = infer_scalar};

}  // namespace

namespace ops {

Value clip_coefficient(Value squared_norm, double limit) {
  return squared_norm.graph().emit(clip_op, {squared_norm}, {{"limit", limit}});
}
Value all_finite(std::vector<Value> scalars) {
  Graph& graph = scalars.at(0).graph();
  return graph.emit(finite_op, std::move(scalars));
}
Value sqrt(Value x) {
  return x.graph().emit(sqrt_op, {x});
}
Value reciprocal(Value x) {
  return x.graph().emit(reciprocal_op, {x});
}
void update_loss_scale(Value scale, Value steps, Value ok, const LossScale& options) {
  scale.graph().emit(
      loss_scale_op, {scale, steps, ok},
      {{"growth", options.growth}, {"backoff", options.backoff}, {"interval", options.interval}});
}
Value constant(Graph& graph, double value) {
  return graph.emit(constant_op, {}, {{"value", value}});
}

}  // namespace ops
}  // namespace ftrain
