#include "ftrain/ops/shape.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;

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

std::vector<TensorType> infer_concat(const Node& node) {
  TensorType type = node.input(0);
  require(type.shape.rank() >= 1, node, "there must be rows");
  for (std::size_t i = 1; i < node.inputs.size(); ++i) {
    TensorType part = node.input(i);
    require(part.shape.rank() == type.shape.rank(), node, "the parts must be alike but for rows");
    const std::int64_t rows = part.shape[0];
    part.shape[0] = type.shape[0];
    require(part == type, node, "the parts must be alike but for rows");
    type.shape[0] += rows;
  }
  return {type};
}

}  // namespace

namespace ops::def {

const OpDef reshape{.name = "reshape",
                    .infer = infer_reshape,
                    .vjp = vjp_reshape,
                    .operands = "x",
                    .view = true,
                    .light = true};
const OpDef slice_rows{
    .name = "slice_rows", .infer = infer_slice, .operands = "x", .recompute = Recompute::never};
const OpDef concat_rows{.name = "concat_rows", .infer = infer_concat, .operands = "part ..."};

}  // namespace ops::def

namespace ops {

Value reshape(Value x, Shape shape) {
  if (x.shape() == shape) return x;
  return x.graph().emit(def::reshape, {x}, {{"shape", shape.extents()}});
}
Value flatten(Value x) {
  const std::int64_t rows = x.shape()[0];
  return reshape(x, {rows, x.shape().elements() / rows});
}

Value slice_rows(Value x, std::int64_t first, std::int64_t count) {
  if (first == 0 && x.shape().rank() > 0 && count == x.shape()[0]) return x;
  return x.graph().emit(def::slice_rows, {x}, {{"first", first}, {"count", count}});
}

Value concat_rows(std::vector<Value> parts) {
  if (parts.size() == 1) return parts[0];
  Graph& graph = parts.at(0).graph();
  return graph.emit(def::concat_rows, std::move(parts));
}

}  // namespace ops
}  // namespace ftrain
