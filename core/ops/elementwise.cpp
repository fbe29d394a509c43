#include "ftrain/ops/elementwise.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

std::vector<TensorType> like_first(const Node& node) {
  return {node.input(0)};
}

std::vector<TensorType> infer_same(const Node& node) {
  require(node.input(0) == node.input(1), node, "both operands must have one type and shape");
  return {node.input(0)};
}

std::vector<TensorType> infer_scalar_factor(const Node& node) {
  require(node.input(1).shape.rank() == 0, node, "the factor must be a scalar");
  return {node.input(0)};
}

std::vector<TensorType> infer_scale_rows(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() == 2 && node.input(1).shape == Shape{x[0]}, node,
          "x must be [N, D] and the factors [N]");
  return {node.input(0)};
}

std::vector<TensorType> infer_prelu(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(x.rank() >= 2 && node.input(1).shape == Shape{x[1]}, node,
          "x must be [N, C, ...] and slope [C]");
  return {node.input(0)};
}

std::vector<TensorType> infer_prelu_grad(const Node& node) {
  require(node.input(0).shape == node.input(1).shape, node, "dy and x must have one shape");
  return {node.input(0), node.input(2)};
}

std::vector<TensorType> infer_cast(const Node& node) {
  static constexpr DType types[] = {DType::u8,   DType::i32, DType::i64, DType::f16,
                                    DType::bf16, DType::f32, DType::f64};
  TensorType type = node.input(0);
  for (const DType dtype : types) {
    if (name_of(dtype) == node.attributes.text("to")) type.dtype = dtype;
  }
  return {type};
}

Values vjp_add(Graph&, const Node&, const Values& dy) {
  return {dy[0], dy[0]};
}

Values vjp_mul(Graph&, const Node& node, const Values& dy) {
  return {ops::mul(dy[0], node.inputs[1]), ops::mul(dy[0], node.inputs[0])};
}

Values vjp_scale(Graph&, const Node& node, const Values& dy) {
  return {ops::scale(dy[0], node.attributes.number("factor"))};
}

Values vjp_scale_by(Graph&, const Node& node, const Values& dy) {
  return {ops::scale_by(dy[0], node.inputs[1]), ops::sum(ops::mul(dy[0], node.inputs[0]))};
}

Values vjp_shift(Graph&, const Node&, const Values& dy) {
  return {dy[0]};
}

Values vjp_clamp(Graph&, const Node& node, const Values& dy) {
  const Attributes& a = node.attributes;
  return {ops::clamp_grad(dy[0], node.inputs[0], a.number("low"), a.number("high"))};
}

Values vjp_sqrt(Graph&, const Node& node, const Values& dy) {
  const Value y(&dy[0].graph(), node.index, 0);
  return {ops::scale(ops::mul(dy[0], ops::reciprocal(y)), 0.5)};
}

Values vjp_reciprocal(Graph&, const Node& node, const Values& dy) {
  const Value y(&dy[0].graph(), node.index, 0);
  return {ops::scale(ops::mul(dy[0], ops::mul(y, y)), -1)};
}

Values vjp_relu(Graph&, const Node& node, const Values& dy) {
  return {ops::relu_grad(dy[0], node.inputs[0])};
}

Values vjp_prelu(Graph&, const Node& node, const Values& dy) {
  const auto [dx, dslope] = ops::prelu_grad(dy[0], node.inputs[0], node.inputs[1]);
  return {dx, dslope};
}

Values vjp_cast(Graph&, const Node& node, const Values& dy) {
  return {ops::cast(dy[0], node.input(0).dtype)};
}

// The mask depends on (seed, step, element) alone, so the backward draws it again.
Values vjp_dropout(Graph& graph, const Node& node, const Values& dy) {
  return {graph.emit(*node.op, {dy[0], node.inputs[1]}, node.attributes, node.name), Value()};
}

}  // namespace

namespace ops::def {

const OpDef add{.name = "add",
                .infer = infer_same,
                .vjp = vjp_add,
                .operands = "a b",
                .narrowing = {Narrowing::When::follows, {0, 1}},
                .recompute = Recompute::cheap,
                .light = true};
const OpDef mul{.name = "mul",
                .infer = infer_same,
                .vjp = vjp_mul,
                .operands = "a b",
                .narrowing = {Narrowing::When::follows, {0, 1}}};
const OpDef scale{.name = "scale",
                  .infer = like_first,
                  .vjp = vjp_scale,
                  .operands = "x",
                  .narrowing = {Narrowing::When::follows, {0}},
                  .light = true};
const OpDef scale_by{
    .name = "scale_by", .infer = infer_scalar_factor, .vjp = vjp_scale_by, .operands = "x factor"};
const OpDef shift{.name = "shift", .infer = like_first, .vjp = vjp_shift, .operands = "x"};
const OpDef clamp{.name = "clamp", .infer = like_first, .vjp = vjp_clamp, .operands = "x"};
const OpDef clamp_grad{.name = "clamp_grad", .infer = infer_same, .operands = "dy x"};
const OpDef sqrt{.name = "sqrt", .infer = like_first, .vjp = vjp_sqrt, .operands = "x"};
const OpDef reciprocal{
    .name = "reciprocal", .infer = like_first, .vjp = vjp_reciprocal, .operands = "x"};
const OpDef scale_rows{.name = "scale_rows", .infer = infer_scale_rows, .operands = "x factors"};
const OpDef relu{.name = "relu",
                 .infer = like_first,
                 .vjp = vjp_relu,
                 .operands = "x",
                 .narrowing = {Narrowing::When::follows, {0}}};
const OpDef relu_grad{.name = "relu_grad",
                      .infer = infer_same,
                      .operands = "dy x",
                      .narrowing = {Narrowing::When::follows, {0, 1}}};
const OpDef prelu{.name = "prelu",
                  .infer = infer_prelu,
                  .vjp = vjp_prelu,
                  .operands = "x slope",
                  .narrowing = {Narrowing::When::follows, {0}},
                  .recompute = Recompute::cheap};
const OpDef prelu_grad{.name = "prelu_grad",
                       .infer = infer_prelu_grad,
                       .operands = "dy x slope",
                       .narrowing = {Narrowing::When::follows, {0, 1}}};
const OpDef cast{
    .name = "cast", .infer = infer_cast, .vjp = vjp_cast, .operands = "x", .light = true};
const OpDef dropout{.name = "dropout",
                    .infer = like_first,
                    .vjp = vjp_dropout,
                    .operands = "x step",
                    .narrowing = {Narrowing::When::follows, {0}}};

}  // namespace ops::def

namespace ops {

Value add(Value a, Value b) {
  return a.graph().emit(def::add, {a, b});
}
Value mul(Value a, Value b) {
  return a.graph().emit(def::mul, {a, b});
}
Value scale(Value x, double factor) {
  return x.graph().emit(def::scale, {x}, {{"factor", factor}});
}
Value scale_by(Value x, Value factor) {
  return x.graph().emit(def::scale_by, {x, factor});
}
Value shift(Value x, double summand) {
  return x.graph().emit(def::shift, {x}, {{"summand", summand}});
}
Value clamp(Value x, double low, double high) {
  return x.graph().emit(def::clamp, {x}, {{"low", low}, {"high", high}});
}
Value clamp_grad(Value dy, Value x, double low, double high) {
  return x.graph().emit(def::clamp_grad, {dy, x}, {{"low", low}, {"high", high}});
}
Value sqrt(Value x) {
  return x.graph().emit(def::sqrt, {x});
}
Value reciprocal(Value x) {
  return x.graph().emit(def::reciprocal, {x});
}
Value scale_rows(Value x, Value factors) {
  return x.graph().emit(def::scale_rows, {x, factors});
}
Value relu(Value x) {
  return x.graph().emit(def::relu, {x});
}
Value relu_grad(Value dy, Value x) {
  return x.graph().emit(def::relu_grad, {dy, x});
}
Value prelu(Value x, Value slope) {
  return x.graph().emit(def::prelu, {x, slope});
}
PReluGrad prelu_grad(Value dy, Value x, Value slope) {
  const Value dx = x.graph().emit(def::prelu_grad, {dy, x, slope});
  return {dx, dx.sibling(1)};
}
Value cast(Value x, DType to) {
  if (x.dtype() == to) return x;
  return x.graph().emit(def::cast, {x}, {{"to", std::string(name_of(to))}});
}
Value dropout(Value x, double p, Value step, std::uint64_t seed, std::int64_t first_sample) {
  if (p == 0) return x;
  return x.graph().emit(
      def::dropout, {x, step},
      {{"p", p}, {"seed", static_cast<std::int64_t>(seed)}, {"first_sample", first_sample}});
}

}  // namespace ops
}  // namespace ftrain
