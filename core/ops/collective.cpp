#include "ftrain/ops/collective.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

std::vector<TensorType> like_inputs(const Node& node) {
  std::vector<TensorType> types;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) types.push_back(node.input(i));
  return types;
}

std::int64_t ranks_of(const Node& node) {
  return node.attributes.integer("ranks");
}

std::vector<TensorType> infer_gather(const Node& node) {
  TensorType type = node.input(0);
  require(type.shape.rank() >= 1, node, "x must have rows to gather");
  require(!node.attributes.has("wire") || type.dtype == DType::f32, node,
          "what travels in bf16 must be f32");
  type.shape[0] *= ranks_of(node);
  return {type};
}

std::vector<TensorType> infer_scatter(const Node& node) {
  TensorType type = node.input(0);
  require(type.shape.rank() >= 1 && type.shape[0] % ranks_of(node) == 0, node,
          "the rows must divide by the ranks");
  type.shape[0] /= ranks_of(node);
  return {type};
}

// The loss is the mean over the global batch and every rank holds its own share of each gradient,
// so a sum's gradient is the sum of the ranks' gradients.
Values vjp_all_reduce(Graph&, const Node& node, const Values& dy) {
  return ops::all_reduce_sum(dy, ranks_of(node));
}
Values vjp_gather(Graph&, const Node& node, const Values& dy) {
  return {ops::reduce_scatter(dy[0], ranks_of(node))};
}
Values vjp_scatter(Graph&, const Node& node, const Values& dy) {
  return {ops::all_gather(dy[0], ranks_of(node))};
}

}  // namespace

namespace ops::def {

const OpDef all_reduce{.name = "all_reduce",
                       .infer = like_inputs,
                       .vjp = vjp_all_reduce,
                       .operands = "tensor ...",
                       .collective = Collective::all_reduce,
                       .ordering = Ordering::separate};
const OpDef all_gather{.name = "all_gather",
                       .infer = infer_gather,
                       .vjp = vjp_gather,
                       .operands = "x",
                       .collective = Collective::all_gather};
const OpDef reduce_scatter{.name = "reduce_scatter",
                           .infer = infer_scatter,
                           .vjp = vjp_scatter,
                           .operands = "x",
                           .collective = Collective::reduce_scatter};
const OpDef broadcast{.name = "broadcast",
                      .infer = like_inputs,
                      .operands = "x",
                      .collective = Collective::broadcast,
                      .ordering = Ordering::separate};

}  // namespace ops::def

namespace ops {

std::vector<Value> all_reduce_sum(std::vector<Value> tensors, std::int64_t ranks) {
  if (ranks == 1 || tensors.empty()) return tensors;
  const Value first = tensors[0].graph().emit(def::all_reduce, tensors, {{"ranks", ranks}});
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    tensors[i] = first.sibling(static_cast<std::int32_t>(i));
  }
  return tensors;
}
Value all_reduce_sum(Value x, std::int64_t ranks) {
  return all_reduce_sum(std::vector<Value>{x}, ranks)[0];
}
Value all_gather(Value x, std::int64_t ranks, std::optional<DType> wire) {
  if (ranks == 1) return x;
  if (!wire || *wire == x.dtype()) return x.graph().emit(def::all_gather, {x}, {{"ranks", ranks}});
  if (*wire != DType::bf16) {
    throw ShapeError("all_gather: x must travel in bf16 or in its own type; got " +
                     x.type().text() + " to travel in " + std::string(name_of(*wire)));
  }
  return x.graph().emit(def::all_gather, {x}, {{"ranks", ranks}, {"wire", std::string("bf16")}});
}
Value reduce_scatter(Value x, std::int64_t ranks) {
  return ranks == 1 ? x : x.graph().emit(def::reduce_scatter, {x}, {{"ranks", ranks}});
}
Value broadcast(Value x, std::int64_t root, std::int64_t ranks) {
  return ranks == 1 ? x : x.graph().emit(def::broadcast, {x}, {{"root", root}, {"ranks", ranks}});
}

}  // namespace ops
}  // namespace ftrain
