#include "gelu.h"

#include <string>
#include <vector>

namespace gelu {
namespace {

using ftrain::Graph;
using ftrain::Node;
using ftrain::OpDef;
using ftrain::TensorType;
using ftrain::Value;

std::vector<TensorType> infer_gelu(const Node& node) {
  ftrain::require(ftrain::is_floating(node.input(0).dtype), node, "x must be floating");
  return {node.input(0)};
}

std::vector<TensorType> infer_gelu_grad(const Node& node) {
  ftrain::require(node.input(0) == node.input(1), node, "dy and x must be of one type");
  return {node.input(1)};
}

std::vector<Value> vjp_gelu(Graph&, const Node& node, const std::vector<Value>& gradients) {
  return {gelu_grad(gradients[0], node.inputs[0])};
}

// Cheap to make again in the backward walk: one pass over memory.
const OpDef gelu_op{.name = "gelu",
                    .infer = infer_gelu,
                    .vjp = vjp_gelu,
                    .operands = "x",
                    .recompute = ftrain::Recompute::cheap};
const OpDef gelu_grad_op{.name = "gelu_grad", .infer = infer_gelu_grad, .operands = "dy x"};

}  // namespace

Value gelu(Value x) {
  return x.graph().emit(gelu_op, {x});
}

Value gelu_grad(Value dy, Value x) {
  return x.graph().emit(gelu_grad_op, {dy, x});
}

std::string refuse_mixed(const Node& node) {
  const TensorType& y = node.outputs[0];
  for (const Value& input : node.inputs) {
    if (input.type() != y)
      return "wants one type and order, not both " + y.text() + " and " + input.type().text();
  }
  return {};
}

std::string refuse_but_f32(const Node& node, const ftrain::KernelEnvironment&) {
  if (node.outputs[0].dtype != ftrain::DType::f32) return "is for f32 only";
  return refuse_mixed(node);
}

}  // namespace gelu
