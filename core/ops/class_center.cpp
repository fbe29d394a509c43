// Operand orders, for kernels (`rows` may be invalid: all rows of the weight):
//
//   target_cosine          features, labels, weight -> cosine
//   class_center_forward   features, norms, labels, weight, target, rows
//                          -> stats, inverse [, cosines: with attribute "keep_cosines"]
//   margin_loss            stats, norms, target -> loss, log_sum
//   class_center_backward  features, norms, labels, weight, target, log_sum, inverse, rows,
//                          cosines, earlier (either may be invalid) -> dweight, dfeatures
//   class_center_update    the same, then rate, ok, step (invalid unless bf16), slots...
//                          -> dfeatures
//   sample_classes         labels, step -> rows
//
// The weight and its slots may be bf16 where features are f32; everything made of them is f32.
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

Attributes attributes_of(const ops::ClassCenters& c) {
  return {{"margin", c.margin},
          {"first_class", c.first_class},
          {"gradient_scale", c.gradient_scale},
          {"keep_cosines", c.keep_cosines}};
}

bool w_type_fits(const Node& node, std::size_t weight) {
  const DType features = node.input(0).dtype, centers = node.input(weight).dtype;
  return centers == features || (centers == DType::bf16 && features == DType::f32);
}

void require_operands(const Node& node, std::size_t labels, std::size_t weight) {
  const Shape& x = node.input(0).shape;
  const Shape& w = node.input(weight).shape;
  require(x.rank() == 2 && w.rank() == 2 && x[1] == w[1], node,
          "features must be [B, D] and class centers [C, D] of one width D");
  require(w_type_fits(node, weight), node,
          "class centers must be of the features' type, or bf16 beside f32");
  require(node.input(labels).dtype == DType::i64 && node.input(labels).shape == Shape{x[0]}, node,
          "labels must be i64 [B]");
}

void require_rows(const Node& node, std::size_t rows) {
  if (!node.inputs[rows].valid()) return;
  require(node.input(rows).dtype == DType::i32 && node.input(rows).shape.rank() == 1, node,
          "rows must be i32 [capacity]");
}

std::vector<TensorType> infer_target(const Node& node) {
  require_operands(node, 1, 2);
  return {{node.input(0).dtype, Shape{node.input(0).shape[0]}}};
}

std::vector<TensorType> infer_forward(const Node& node) {
  require_operands(node, 2, 3);
  require_rows(node, 5);
  const DType dtype = node.input(0).dtype;
  const std::int64_t walked =
      node.inputs[5].valid() ? node.input(5).shape[0] : node.input(3).shape[0];
  const std::int64_t batch = node.input(0).shape[0];
  std::vector<TensorType> types{{dtype, Shape{batch, 2}}, {dtype, Shape{walked}}};
  if (node.attributes.flag("keep_cosines")) types.push_back({dtype, Shape{walked, batch}});
  return types;
}

std::vector<TensorType> infer_loss(const Node& node) {
  const Shape& stats = node.input(0).shape;
  require(stats.rank() == 3 && stats[2] == 2 && stats[1] == node.input(2).shape[0], node,
          "stats must be [ranks, B, 2] and target cosines [B]");
  const DType dtype = node.input(0).dtype;
  return {{dtype, Shape{}}, {dtype, Shape{stats[1]}}};
}

constexpr std::size_t step = 12, first_slot = 13;

// Of the gradient of the walked rows.
TensorType gradient_type(const Node& node) {
  return {node.input(0).dtype, Shape{node.input(6).shape[0], node.input(3).shape[1]}};
}

void require_walk(const Node& node) {
  require_operands(node, 2, 3);
  require_rows(node, 7);
  const std::int64_t walked =
      node.inputs[7].valid() ? node.input(7).shape[0] : node.input(3).shape[0];
  require(node.input(6).shape == Shape{walked}, node, "inverse norms must be [walked classes]");
  if (node.inputs[8].valid()) {
    require(node.input(8).shape == Shape{walked, node.input(0).shape[0]}, node,
            "cosines must be [walked classes, B]");
  }
  if (node.inputs[9].valid()) {
    require(node.input(9) == gradient_type(node), node,
            "an earlier gradient must be [walked classes, D]");
  }
}

std::vector<TensorType> infer_backward(const Node& node) {
  require_walk(node);
  return {gradient_type(node), node.input(0)};
}

std::vector<TensorType> infer_update(const Node& node) {
  require_walk(node);
  for (std::size_t i = first_slot; i < node.inputs.size(); ++i) {
    require(node.input(i).shape == node.input(3).shape, node, "slots must have weight's shape");
    require(node.input(i).dtype == node.input(3).dtype, node, "slots must be of weight's type");
  }
  if (node.input(3).dtype == DType::bf16) {
    require(node.inputs[step].valid(), node, "class centers in bf16 are rounded by the step");
  }
  if (node.inputs[step].valid()) {
    require(node.input(step).dtype == DType::i64 && node.input(step).shape.rank() == 0, node,
            "the step must be an i64 scalar");
  }
  return {node.input(0)};
}

std::vector<int> writes_update(const Node& node) {
  std::vector<int> written{3};
  for (std::size_t i = first_slot; i < node.inputs.size(); ++i) {
    written.push_back(static_cast<int>(i));
  }
  return written;
}

std::vector<TensorType> infer_sample(const Node& node) {
  require(node.input(0).dtype == DType::i64 && node.input(0).shape.rank() == 1, node,
          "labels must be i64 [B]");
  return {{DType::i32, Shape{node.attributes.integer("capacity")}}};
}

const OpDef target_op{.name = "target_cosine", .infer = infer_target};
const OpDef forward_op{.name = "class_center_forward", .infer = infer_forward};
const OpDef loss_op{.name = "margin_loss", .infer = infer_loss};
const OpDef backward_op{.name = "class_center_backward", .infer = infer_backward};
const OpDef update_op{
    .name = "class_center_update", .infer = infer_update, .writes = writes_update};
const OpDef sample_op{.name = "sample_classes", .infer = infer_sample};

}  // namespace

namespace ops {

Value target_cosine(Value features, Value labels, Value weight, const ClassCenters& c) {
  return features.graph().emit(target_op, {features, labels, weight}, attributes_of(c));
}

ClassStats class_center_forward(Value features, Value norms, Value labels, Value weight,
                                Value target, Value rows, const ClassCenters& c) {
  const Value stats = features.graph().emit(
      forward_op, {features, norms, labels, weight, target, rows}, attributes_of(c));
  return {stats, stats.sibling(1), c.keep_cosines ? stats.sibling(2) : Value()};
}

MarginLoss margin_loss(Value stats, Value norms, Value target, const ClassCenters& c) {
  const Value loss = stats.graph().emit(loss_op, {stats, norms, target}, attributes_of(c));
  return {loss, loss.sibling(1)};
}

ClassGradients class_center_backward(Value features, Value norms, Value labels, Value weight,
                                     Value target, Value log_sum, const ClassStats& stats,
                                     Value rows, const ClassCenters& c, Value earlier) {
  const Value weight_gradient =
      features.graph().emit(backward_op,
                            {features, norms, labels, weight, target, log_sum, stats.inverse_norms,
                             rows, stats.cosines, earlier},
                            attributes_of(c));
  return {weight_gradient.sibling(1), weight_gradient};
}

Value class_center_update(Value features, Value norms, Value labels, Value weight, Value target,
                          Value log_sum, const ClassStats& stats, Value rows,
                          std::vector<Value> slots, Value rate, Value ok, const ClassCenters& c,
                          const RowUpdate& update) {
  Attributes attributes = attributes_of(c);
  attributes.set("update", update.update);
  attributes.set("rate_factor", update.rate_factor);
  attributes.set("decay", update.decay);
  attributes.set("all_rows", update.all_rows);
  if (update.step.valid()) attributes.set("seed", static_cast<std::int64_t>(update.seed));
  std::vector<Value> inputs{
      features, norms,         labels,         weight, target, log_sum,    stats.inverse_norms,
      rows,     stats.cosines, update.earlier, rate,   ok,     update.step};
  inputs.insert(inputs.end(), slots.begin(), slots.end());
  return features.graph().emit(update_op, std::move(inputs), std::move(attributes));
}

Value sample_classes(Value labels, Value step, const SampleClasses& s) {
  return labels.graph().emit(sample_op, {labels, step},
                             {{"first_class", s.first_class},
                              {"local_classes", s.local_classes},
                              {"capacity", s.capacity},
                              {"sample_rate", s.sample_rate},
                              {"seed", static_cast<std::int64_t>(s.seed)}});
}

}  // namespace ops
}  // namespace ftrain
