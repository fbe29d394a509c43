#include "ftrain/ops/reduction.h"

#include "core/ops/sums.h"
#include "ftrain/ops.h"

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
Values vjp_fill(Graph&, const Node&, const Values& dy) {
  return {ops::sum(dy[0])};
}
Values vjp_sum_rows(Graph&, const Node& node, const Values& dy) {
  return {ops::repeat_rows(dy[0], node.input(0).shape[0])};
}

}  // namespace

namespace ops::def {

// Accumulates in double and hands out f32 (f64 for f64 tensors).
const OpDef squared_norm{.name = "squared_norm",
                         .infer = infer_scalar,
                         .operands = "tensor ...",
                         .ordering = Ordering::separate,
                         .concern = Concern::update};
const OpDef global_average_pool{.name = "global_average_pool",
                                .infer = infer_pool,
                                .vjp = vjp_pool,
                                .operands = "x",
                                .narrowing = {Narrowing::When::follows, {0}}};
const OpDef global_average_pool_grad{
    .name = "global_average_pool_grad", .infer = infer_shape_attribute, .operands = "dy"};
const OpDef sum{.name = "sum", .infer = infer_scalar, .vjp = vjp_sum, .operands = "x"};
const OpDef fill_like{
    .name = "fill_like", .infer = infer_shape_attribute, .vjp = vjp_fill, .operands = "scalar"};
const OpDef sum_rows{
    .name = "sum_rows", .infer = infer_sum_rows, .vjp = vjp_sum_rows, .operands = "x"};
const OpDef repeat_rows{.name = "repeat_rows", .infer = infer_shape_attribute, .operands = "row"};

}  // namespace ops::def

namespace ops {

Value global_average_pool(Value x) {
  return x.graph().emit(def::global_average_pool, {x});
}
Value global_average_pool_grad(Value dy, const Shape& shape) {
  return dy.graph().emit(def::global_average_pool_grad, {dy}, {{"shape", shape.extents()}});
}
Value sum(Value x) {
  return x.graph().emit(def::sum, {x});
}
Value mean(Value x) {
  return scale(sum(x), 1.0 / static_cast<double>(x.shape().elements()));
}
Value sum_rows(Value x) {
  return x.graph().emit(def::sum_rows, {x});
}
Value squared_norm(std::vector<Value> tensors) {
  Graph& graph = tensors.at(0).graph();
  return graph.emit(def::squared_norm, std::move(tensors));
}
Value fill_like(Value scalar, const Shape& shape) {
  return scalar.graph().emit(def::fill_like, {scalar}, {{"shape", shape.extents()}});
}
Value repeat_rows(Value row, std::int64_t rows) {
  return row.graph().emit(def::repeat_rows, {row},
                          {{"shape", std::vector<std::int64_t>{rows, row.shape()[0]}}});
}

}  // namespace ops
}  // namespace ftrain
