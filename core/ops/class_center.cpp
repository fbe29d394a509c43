#include "ftrain/ops/class_center.h"

#include <algorithm>
#include <cmath>

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

// Those that a pass goes over.
std::int64_t walked_rows(const Node& node, std::size_t rows, std::size_t weight) {
  return node.input(node.inputs[rows].valid() ? rows : weight).shape[0];
}

void require_terms(const Node& node, std::size_t terms, std::int64_t batch) {
  if (!node.inputs[terms].valid()) return;
  const TensorType& type = node.input(terms);
  require(type.dtype == node.input(0).dtype && type.shape.rank() == 2 && type.shape[1] == batch &&
              type.shape[0] >= 1 && type.shape[0] <= most_margin_terms,
          node, "terms must be of the features' type and [n, B] with n of 1 to 4");
}

std::vector<TensorType> infer_target(const Node& node) {
  require_operands(node, 1, 2);
  return {{node.input(0).dtype, Shape{node.input(0).shape[0]}}};
}

std::vector<TensorType> infer_forward(const Node& node) {
  require_operands(node, center_forward::labels, center_forward::weight);
  require_rows(node, center_forward::rows);
  require_terms(node, center_forward::terms, node.input(0).shape[0]);
  const DType dtype = node.input(0).dtype;
  const std::int64_t walked = walked_rows(node, center_forward::rows, center_forward::weight);
  const std::int64_t batch = node.input(0).shape[0];
  std::vector<TensorType> types{{dtype, Shape{batch, 2}}, {dtype, Shape{walked}}};
  if (node.attributes.flag("keep_cosines")) types.push_back({dtype, Shape{walked, batch}});
  return types;
}

std::vector<TensorType> infer_loss(const Node& node) {
  const Shape& stats = node.input(center_loss::stats).shape;
  require(
      stats.rank() == 3 && stats[2] == 2 && stats[1] == node.input(center_loss::target).shape[0],
      node, "stats must be [ranks, B, 2] and target cosines [B]");
  require_terms(node, center_loss::terms, stats[1]);
  const DType dtype = node.input(0).dtype;
  return {{dtype, Shape{}}, {dtype, Shape{stats[1]}}};
}

std::vector<TensorType> infer_term_gradient(const Node& node) {
  const Shape& target = node.input(term_gradient::target).shape;
  require(target.rank() == 1 && node.input(term_gradient::norms).shape == target &&
              node.input(term_gradient::log_sum).shape == target,
          node, "target cosines, norms and log_sum must be [B]");
  require(node.inputs[term_gradient::terms].valid(), node, "there must be terms");
  require_terms(node, term_gradient::terms, target[0]);
  return {node.input(term_gradient::terms)};
}

namespace pass = center_pass;

// Of the gradient of the walked rows.
TensorType gradient_type(const Node& node) {
  return {node.input(0).dtype,
          Shape{node.input(pass::inverse_norms).shape[0], node.input(pass::weight).shape[1]}};
}

void require_walk(const Node& node) {
  require_operands(node, pass::labels, pass::weight);
  require_rows(node, pass::rows);
  const std::int64_t batch = node.input(0).shape[0];
  const std::int64_t walked = walked_rows(node, pass::rows, pass::weight);
  require(node.input(pass::inverse_norms).shape == Shape{walked}, node,
          "inverse norms must be [walked classes]");
  if (node.inputs[pass::cosines].valid()) {
    require(node.input(pass::cosines).shape == Shape{walked, batch}, node,
            "cosines must be [walked classes, B]");
  }
  if (node.inputs[pass::earlier].valid()) {
    require(node.input(pass::earlier) == gradient_type(node), node,
            "an earlier gradient must be [walked classes, D]");
  }
  require_terms(node, pass::terms, batch);
}

std::vector<TensorType> infer_backward(const Node& node) {
  require_walk(node);
  return {gradient_type(node), node.input(0)};
}

std::vector<TensorType> infer_update(const Node& node) {
  require_walk(node);
  for (std::size_t i = pass::first_slot; i < node.inputs.size(); ++i) {
    require(node.input(i).shape == node.input(pass::weight).shape, node,
            "slots must have weight's shape");
    require(node.input(i).dtype == node.input(pass::weight).dtype, node,
            "slots must be of weight's type");
  }
  if (node.input(pass::weight).dtype == DType::bf16) {
    require(node.inputs[pass::step].valid(), node, "class centers in bf16 are rounded by the step");
  }
  if (node.inputs[pass::step].valid()) {
    const TensorType& step = node.input(pass::step);
    require(step.dtype == DType::i64 && step.shape.rank() == 0, node,
            "the step must be an i64 scalar");
  }
  if (node.inputs[pass::row_steps].valid()) {
    const Shape classes{node.input(pass::weight).shape[0]};
    require(node.input(pass::row_steps) == TensorType{DType::f32, classes}, node,
            "the rows' steps must be f32 [C]");
  }
  return {node.input(0)};
}

std::vector<int> writes_update(const Node& node) {
  std::vector<int> written{static_cast<int>(pass::weight)};
  if (node.inputs[pass::row_steps].valid()) written.push_back(static_cast<int>(pass::row_steps));
  for (std::size_t i = pass::first_slot; i < node.inputs.size(); ++i) {
    written.push_back(static_cast<int>(i));
  }
  return written;
}

std::vector<TensorType> infer_sample(const Node& node) {
  require(node.input(0).dtype == DType::i64 && node.input(0).shape.rank() == 1, node,
          "labels must be i64 [B]");
  return {{DType::i32, Shape{node.attributes.integer("capacity")}}};
}

// The rows that a pass goes over: all of the rank's, or as many as are expected to be sampled.
// Their number varies, the slots for them are for the worst case.
double expected_rows(const Node& node, Value rows) {
  const Value weight = node.inputs[center_pass::weight];
  const auto local = static_cast<double>(weight.shape()[0]);
  if (!rows.valid()) return local;
  const Node& sample = rows.node();
  const auto slots = static_cast<double>(rows.shape()[0]);
  const Graph::State* centers = weight.graph().state_of(weight);
  if (sample.op != &ops::def::sample_classes || centers == nullptr) return slots;
  // A class rests when neither its hash nor one of the batch's labels takes it.
  const auto classes = static_cast<double>(centers->spec.rows);
  const double rests = (1 - sample.attributes.number("sample_rate")) *
                       std::exp(-static_cast<double>(sample.input(0).shape.elements()) / classes);
  return std::min(slots, local * (1 - rests));
}

OpCost cost_of_pass(const Node& node) {
  const bool forward = node.op == &ops::def::class_center_forward;
  const TensorType& features = node.input(center_pass::features);
  const TensorType& weight = node.input(center_pass::weight);
  const double rows =
      expected_rows(node, node.inputs[forward ? center_forward::rows : center_pass::rows]);
  const auto width = static_cast<double>(weight.shape[1]);
  const double row = width * static_cast<double>(size_of(weight.dtype));
  // Cosines, where they are not cached; in the second pass the gradients of features and centers.
  const bool cached = !forward && node.inputs[center_pass::cosines].valid();
  const double products = forward ? 1 : cached ? 2 : 3;
  OpCost cost{.flops = 2 * products * static_cast<double>(features.shape.elements()) * rows,
              .bytes = rows * row};
  const double cosines = 4 * rows * static_cast<double>(features.shape[0]);
  if (cached || (forward && node.outputs.size() > 2)) cost.bytes += cosines;
  if (node.op == &ops::def::class_center_backward) {
    cost.bytes += rows * width * 4 * (node.inputs[center_pass::earlier].valid() ? 2 : 1);
  } else if (!forward) {
    const auto written = static_cast<double>(1 + node.inputs.size() - pass::first_slot);
    const bool all = node.attributes.flag("all_rows");
    cost.bytes += (all ? static_cast<double>(weight.shape[0]) : rows) * row * (2 * written - 1);
  }
  return cost;
}

}  // namespace

namespace ops::def {

const OpDef target_cosine{.name = "target_cosine",
                          .infer = infer_target,
                          .operands = "features labels weight",
                          .concern = Concern::class_centers};
const OpDef class_center_forward{.name = "class_center_forward",
                                 .infer = infer_forward,
                                 .operands = "features norms labels weight target rows terms",
                                 .concern = Concern::class_centers,
                                 .cost = cost_of_pass};
const OpDef margin_loss{.name = "margin_loss",
                        .infer = infer_loss,
                        .operands = "stats norms target terms",
                        .concern = Concern::class_centers};
const OpDef margin_term_gradient{.name = "margin_term_gradient",
                                 .infer = infer_term_gradient,
                                 .operands = "target norms log_sum terms",
                                 .concern = Concern::class_centers};
const OpDef class_center_backward{
    .name = "class_center_backward",
    .infer = infer_backward,
    .operands =
        "features norms labels weight target log_sum inverse_norms rows cosines earlier terms",
    .concern = Concern::class_centers,
    .cost = cost_of_pass};
const OpDef class_center_update{.name = "class_center_update",
                                .infer = infer_update,
                                .writes = writes_update,
                                .operands =
                                    "features norms labels weight target log_sum inverse_norms "
                                    "rows cosines earlier terms rate ok step row_steps slot ...",
                                .concern = Concern::class_centers,
                                .cost = cost_of_pass};
const OpDef sample_classes{.name = "sample_classes",
                           .infer = infer_sample,
                           .operands = "labels step",
                           .concern = Concern::class_centers};

}  // namespace ops::def

namespace ops {

Value target_cosine(Value features, Value labels, Value weight, const ClassCenters& c) {
  return features.graph().emit(def::target_cosine, {features, labels, weight}, attributes_of(c));
}

ClassStats class_center_forward(Value features, Value norms, Value labels, Value weight,
                                Value target, Value rows, const ClassCenters& c) {
  const Value stats = features.graph().emit(
      def::class_center_forward, {features, norms, labels, weight, target, rows, c.terms},
      attributes_of(c));
  return {stats, stats.sibling(1), c.keep_cosines ? stats.sibling(2) : Value()};
}

MarginLoss margin_loss(Value stats, Value norms, Value target, const ClassCenters& c) {
  const Value loss =
      stats.graph().emit(def::margin_loss, {stats, norms, target, c.terms}, attributes_of(c));
  return {loss, loss.sibling(1)};
}

Value margin_term_gradient(Value target, Value norms, Value log_sum, const ClassCenters& c) {
  return target.graph().emit(def::margin_term_gradient, {target, norms, log_sum, c.terms},
                             attributes_of(c));
}

ClassGradients class_center_backward(Value features, Value norms, Value labels, Value weight,
                                     Value target, Value log_sum, const ClassStats& stats,
                                     Value rows, const ClassCenters& c, Value earlier) {
  const Value weight_gradient =
      features.graph().emit(def::class_center_backward,
                            {features, norms, labels, weight, target, log_sum, stats.inverse_norms,
                             rows, stats.cosines, earlier, c.terms},
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
  std::vector<Value> inputs{features,
                            norms,
                            labels,
                            weight,
                            target,
                            log_sum,
                            stats.inverse_norms,
                            rows,
                            stats.cosines,
                            update.earlier,
                            c.terms,
                            rate,
                            ok,
                            update.step,
                            update.row_steps};
  inputs.insert(inputs.end(), slots.begin(), slots.end());
  return features.graph().emit(def::class_center_update, std::move(inputs), std::move(attributes));
}

Value sample_classes(Value labels, Value step, const SampleClasses& s) {
  return labels.graph().emit(def::sample_classes, {labels, step},
                             {{"first_class", s.first_class},
                              {"local_classes", s.local_classes},
                              {"capacity", s.capacity},
                              {"sample_rate", s.sample_rate},
                              {"seed", static_cast<std::int64_t>(s.seed)}});
}

}  // namespace ops
}  // namespace ftrain
