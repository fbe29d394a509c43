#include "core/ops/reduction.h"

#include "core/ops/sums.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

std::vector<TensorType> infer_scalar(const Node& node) {
  return {{sum_type(node.input(0).dtype), Shape{}}};
}

std::vector<TensorType> infer_pool(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() == 4, node, "x must be [N, C, H, W]");
  return {{sum_type(node.input(0).dtype), Shape{x[0], x[1]}}};
}

std::vector<TensorType> infer_sum_rows(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() == 2, node, "x must be [N, C]");
  return {{sum_type(node.input(0).dtype), Shape{x[1]}}};
}

std::vector<TensorType> infer_shape_attribute(const Node& node) {
  return {{node.input(0).dtype, Shape(node.attributes.integers("shape"))}};
}

Values vjp_pool(Graph&, const Node& node, const Values& dy) {
  return {ops::global_average_pool_grad(dy[0], node.input(0).shape)};
}
Values vjp_sum(Graph&, const Node& node, const Values& dy) {
  return {ops::fill_like(dy[0], node.input(0).shape)};
}
Values vjp_sum_rows(Graph&, const Node& node, const Values& dy) {
  return {ops::repeat_rows(dy[0], node.input(0).shape[0])};
}

// Accumulates in double and hands out f32 (f64 for f64 tensors).
const OpDef squared_norm_op{.name = "squared_norm", .infer = infer_scalar};
const OpDef pool_op{.name = "global_average_pool", .infer = infer_pool, .vjp = vjp_pool};
const OpDef pool_grad_op{.name = "global_average_pool_grad", .infer = infer_shape_attribute};
const OpDef sum_op{.name = "sum", .infer = infer_scalar, .vjp = vjp_sum};
const OpDef fill_like_op{.name = "fill_like", .infer = infer_shape_attribute};
const OpDef sum_rows_op{.name = "sum_rows", .infer = infer_sum_rows, .vjp = vjp_sum_rows};
const OpDef repeat_rows_op{.name = "repeat_rows", .infer = infer_shape_attribute};

}  // namespace

namespace ops {

Value global_average_pool(Value x) {
  return x.graph().emit(pool_op, {x});
}
Value global_average_pool_grad(Value dy, const Shape& shape) {
  return dy.graph().emit(pool_grad_op, {dy}, {{"shape", shape.extents()}});
}
Value sum(Value x) {
  return x.graph().emit(sum_op, {x});
}
Value mean(Value x) {
  return scale(sum(x), 1.0 / static_cast<double>(x.shape().elements()));
}
Value sum_rows(Value x) {
  return x.graph().emit(sum_rows_op, {x});
}
Value squared_norm(std::vector<Value> tensors) {
  Graph& graph = tensors.at(0).graph();
  return graph.emit(squared_norm_op, std::move(tensors));
}
Value fill_like(Value scalar, const Shape& shape) {
  return scalar.graph().emit(fill_like_op, {scalar}, {{"shape", shape.extents()}});
}
Value repeat_rows(Value row, std::int64_t rows) {
  return row.graph().emit(repeat_rows_op, {row},
                          {{"shape", std::vector<std::int64_t>{rows, row.shape()[0]}}});
}

}  // namespace ops
}  // namespace ftrain
