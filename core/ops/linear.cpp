#include "core/ops/sums.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

std::vector<TensorType> infer_matmul(const Node& node) {
  const Shape& a = node.input(0).shape;
  const Shape& b = node.input(1).shape;
  require(a.rank() == 2 && b.rank() == 2, node, "both operands must be matrices");
  const bool ta = node.attributes.flag("transpose_a"), tb = node.attributes.flag("transpose_b");
  require((ta ? a[0] : a[1]) == (tb ? b[1] : b[0]), node, "the inner extents must agree");
  return {{sum_type(node.input(0).dtype), Shape{ta ? a[1] : a[0], tb ? b[0] : b[1]}}};
}

Values vjp_matmul(Graph&, const Node& node, const Values& dy) {
  const Value a = node.inputs[0], b = node.inputs[1], g = dy[0];
  const bool ta = node.attributes.flag("transpose_a"), tb = node.attributes.flag("transpose_b");
  return {ta ? ops::matmul(b, g, tb, true) : ops::matmul(g, b, false, !tb),
          tb ? ops::matmul(g, a, true, ta) : ops::matmul(a, g, !ta, false)};
}

std::vector<TensorType> infer_add_bias(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() == 2 && node.input(1).shape == Shape{x[1]}, node, "x must be [N, C], bias [C]");
  return {node.input(0)};
}

Values vjp_add_bias(Graph&, const Node&, const Values& dy) {
  return {dy[0], ops::sum_rows(dy[0])};
}

std::vector<TensorType> infer_reshape(const Node& node) {
  const Shape shape(node.attributes.integers("shape"));
  require(shape.elements() == node.input(0).shape.elements(), node,
          "the new shape must have as many elements");
  return {{node.input(0).dtype, shape}};
}

Values vjp_reshape(Graph&, const Node& node, const Values& dy) {
  return {ops::reshape(dy[0], node.input(0).shape)};
}

std::vector<TensorType> infer_slice(const Node& node) {
  TensorType type = node.input(0);
  const std::int64_t first = node.attributes.integer("first");
  const std::int64_t count = node.attributes.integer("count");
  require(type.shape.rank() >= 1 && first >= 0 && count >= 0 && first + count <= type.shape[0],
          node, "the rows must be among those of x");
  type.shape[0] = count;
  return {type};
}

const OpDef matmul_op{.name = "matmul", .infer = infer_matmul, .vjp = vjp_matmul};
const OpDef add_bias_op{.name = "add_bias", .infer = infer_add_bias, .vjp = vjp_add_bias};
const OpDef reshape_op{.name = "reshape", .infer = infer_reshape, .vjp = vjp_reshape, .view = true};
const OpDef slice_op{.name = "slice_rows", .infer = infer_slice};

}  // namespace

namespace ops {

Value matmul(Value a, Value b, bool transpose_a, bool transpose_b) {
  return a.graph().emit(matmul_op, {a, b},
                        {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}});
}
Value add_bias(Value x, Value bias) {
  return x.graph().emit(add_bias_op, {x, bias});
}
Value linear(Value x, Value weight, Value bias) {
  const Value y = matmul(x, weight, false, true);
  return bias.valid() ? add_bias(y, bias) : y;
}
Value reshape(Value x, Shape shape) {
  if (x.shape() == shape) return x;
  return x.graph().emit(reshape_op, {x}, {{"shape", shape.extents()}});
}
Value flatten(Value x) {
  const std::int64_t rows = x.shape()[0];
  return reshape(x, {rows, x.shape().elements() / rows});
}

Value slice_rows(Value x, std::int64_t first, std::int64_t count) {
  if (first == 0 && x.shape().rank() > 0 && count == x.shape()[0]) return x;
  return x.graph().emit(slice_op, {x}, {{"first", first}, {"count", count}});
}

}  // namespace ops
}  // namespace ftrain
