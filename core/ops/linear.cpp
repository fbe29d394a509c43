#include "ftrain/ops/linear.h"

#include "core/ops/sums.h"
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

OpCost cost_of_matmul(const Node& node) {
  const auto inner = static_cast<std::size_t>(node.attributes.flag("transpose_a") ? 0 : 1);
  const double sums = static_cast<double>(node.outputs[0].shape.elements());
  return {.flops = 2 * sums * static_cast<double>(node.input(0).shape[inner]),
          .bytes = static_cast<double>(node.input(0).bytes() + node.input(1).bytes() +
                                       node.outputs[0].bytes())};
}

std::vector<TensorType> infer_add_bias(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() == 2 && node.input(1).shape == Shape{x[1]}, node, "x must be [N, C], bias [C]");
  return {node.input(0)};
}

Values vjp_add_bias(Graph&, const Node&, const Values& dy) {
  return {dy[0], ops::sum_rows(dy[0])};
}

}  // namespace

namespace ops::def {

const OpDef matmul{.name = "matmul",
                   .infer = infer_matmul,
                   .vjp = vjp_matmul,
                   .operands = "a b",
                   .tunable = true,
                   .cost = cost_of_matmul};
const OpDef add_bias{
    .name = "add_bias", .infer = infer_add_bias, .vjp = vjp_add_bias, .operands = "x bias"};
}  // namespace ops::def

namespace ops {

Value matmul(Value a, Value b, bool transpose_a, bool transpose_b) {
  return a.graph().emit(def::matmul, {a, b},
                        {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}});
}
Value add_bias(Value x, Value bias) {
  return x.graph().emit(def::add_bias, {x, bias});
}
Value linear(Value x, Value weight, Value bias) {
  const Value y = matmul(x, weight, false, true);
  return bias.valid() ? add_bias(y, bias) : y;
}
}  // namespace ops
}  // namespace ftrain
