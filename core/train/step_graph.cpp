#include "core/train/step_graph.h"

#include <algorithm>
#include <optional>

#include "ftrain/graph/gradients.h"
#include "ftrain/model/head_pass.h"
#include "ftrain/model/report_scalar.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

void check_embedding(Value embedding, std::int64_t batch) {
  if (embedding.shape().rank() == 2 && embedding.shape()[0] == batch) return;
  throw ShapeError("[backbone]: forward() must return [" + std::to_string(batch) +
                   ", width], it returned " + embedding.type().text());
}

// Batch-norm statistics as [parallelism] batch_norm says.
void set_statistics(Build& build, const Assembly& assembly) {
  const std::int64_t batch = assembly.data.batch, parts = assembly.run.accumulate;
  const auto& choice = assembly.parallelism->batch_norm;
  if (const auto* samples = std::get_if<std::int64_t>(&choice)) {
    if (batch % *samples != 0) {
      throw ConfigError("[parallelism] batch_norm: groups of " + std::to_string(*samples) +
                        " samples do not divide [dataset] batch = " + std::to_string(batch));
    }
    build.norm_groups = batch / *samples;
    return;
  }
  build.global_norm = std::get<std::string>(choice) == "global";
  if (build.global_norm && parts > 1) {
    throw ConfigError(
        "[parallelism] batch_norm = \"global\" wants all samples of a step at once, " +
        std::string("and [run] accumulate = ") + std::to_string(parts) +
        " makes a step in parts; set batch_norm to a number of samples that divides "
        "[dataset] batch = " +
        std::to_string(batch) +
        " (groups of that many have statistics of their own, "
        "in any number of parts and ranks), or to \"rank\"");
  }
}

// Input: image u8 [parts * batch, size, size, 3] and so on, see step_graph.h.
class StepGraph {
 public:
  StepGraph(const Assembly& assembly, std::int64_t classes, int rank, int ranks)
      : assembly_(assembly),
        classes_(classes),
        batch_(assembly.data.batch),
        parts_(assembly.run.accumulate),
        build_{.graph = *graph_} {
    const std::int64_t size = assembly.data.image_size;
    image_ = graph_->input("image", {DType::u8, {parts_ * batch_, size, size, 3}});
    label_ = graph_->input("label", {DType::i64, {parts_ * batch_}});
    rate_ = graph_->input("rate", {DType::f32, {}});
    build_.step = graph_->input("step", {DType::i64, {}});
    if (ranks > 1) notes_ = graph_->input("notes", {DType::f32, {2}});
    if (const auto scaling = assembly.device->loss_scaling()) add_loss_scale(*scaling);
    build_.seed = assembly.seed();
    build_.rank = rank;
    build_.ranks = ranks;
    set_statistics(build_, assembly);
    if (head_half_) head_.emplace(HeadStep{*head_half_, Scope(build_, "head")});
  }

  // The parts stand one behind the other, so that a part's activations are gone before the next
  // part's come.
  std::unique_ptr<Graph> run() {
    if (head_half_ && parts_ > 1) run_ahead();
    for (std::int64_t part = 0; part < parts_; ++part) add_part(part);
    finish();
    return std::move(graph_);
  }

 private:
  StepBuild step_build(std::int64_t part) {
    StepBuild build{.graph = *graph_,
                    .rank = build_.rank,
                    .ranks = build_.ranks,
                    .batch = batch_,
                    .classes = classes_,
                    .seed = assembly_.seed(),
                    .step = build_.step,
                    .rate = rate_,
                    .optimizer = *assembly_.optimizer,
                    .margin = margin_,
                    .parts = parts_,
                    .part = part};
    if (parts_ > 1) build.step_labels = label_;
    if (head_) build.head = &*head_;
    return build;
  }

  Value labels_of(std::int64_t part) { return ops::slice_rows(label_, part * batch_, batch_); }

  Value embedding_of(Build& build, std::int64_t part) {
    build.first_sample = (build.rank * parts_ + part) * batch_;
    const auto& data = assembly_.data;
    const Value pixels =
        ops::image_normalize(ops::slice_rows(image_, part * batch_, batch_), build.step,
                             {.mean = data.mean,
                              .scale = data.scale,
                              .flip = data.flip,
                              .seed = assembly_.seed(),
                              .first_sample = build.first_sample});
    const Value embedding = assembly_.backbone->forward(Scope(build), pixels);
    check_embedding(embedding, batch_);
    return embedding;
  }

  // The head's statistics are of all parts and wanted before the first part's margins, so every
  // part goes forward once more, ahead of all. It is a micro-batch of its own: nothing is kept of
  // it for the real one. Running statistics of the network are the real ones' alone.
  void run_ahead() {
    if (head_half_->statistics_of() == HeadGraph::Statistics::none) return;
    std::vector<Value> target, norms, labels;
    for (std::int64_t part = 0; part < parts_; ++part) {
      graph_->set_stage({Phase::forward, static_cast<std::int32_t>(parts_ + part)});
      Build ahead = build_;
      ahead.at_end.clear();
      const Value embedding = embedding_of(ahead, part);
      if (part == 0) find_parameters();
      const HeadSignals signals =
          assembly_.parallelism->signals(step_build(part), embedding, labels_of(part));
      target.push_back(signals.target);
      norms.push_back(signals.norms);
      labels.push_back(signals.labels);
    }
    HeadPass::statistics(step_build(0), {ops::concat_rows(target), ops::concat_rows(norms),
                                         ops::concat_rows(labels)});
  }

  // Forward, class centers and backward of one part; its gradients are added to those so far.
  void add_part(std::int64_t part) {
    graph_->set_stage({Phase::forward, static_cast<std::int32_t>(part)});
    const Value embedding = embedding_of(build_, part);
    if (part == 0 && parameters_.empty()) find_parameters();
    const ClassCenterStep centers =
        assembly_.parallelism->class_centers(step_build(part), embedding, labels_of(part), so_far_);
    loss_ = loss_.valid() ? ops::add(loss_, centers.loss) : centers.loss;
    // What earlier parts gave is a seed of the parameter itself: it is added to where the gradient
    // is made, and no second set of gradients ever stands. Vectors are small, and devices make them
    // in one go with what stands behind them, so they are added in the end.
    const EmitIn stage(*graph_, Phase::backward);
    const std::vector<Value> earlier = std::move(gradients_);
    std::vector<Seed> seeds = centers.seeds;
    if (loss_scale_.value.valid()) {
      for (Seed& seed : seeds) seed.gradient = ops::scale_by(seed.gradient, loss_scale_.value);
    }
    for (std::size_t i = 0; i < earlier.size(); ++i) {
      if (!is_vector(parameters_[i])) seeds.push_back({parameters_[i], earlier[i]});
    }
    gradients_ = gradients(*graph_, seeds, parameters_);
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
      if (!gradients_[i].valid()) {
        throw ShapeError("[backbone]: the embedding does not depend on the parameter '" +
                         parameters_[i].node().name + "'");
      }
    }
    for (std::size_t i = 0; i < earlier.size(); ++i) {
      if (is_vector(parameters_[i])) gradients_[i] = ops::add(earlier[i], gradients_[i]);
    }
  }

  // The state of this rank is every rank's: ok is the same on all of them.
  void add_loss_scale(const LossScaling& scaling) {
    const auto scalar = [&](const char* name, double first) {
      return graph_->state({.role = StateSpec::Role::slot,
                            .name = name,
                            .type = {DType::f32, {}},
                            .initializer = {Initializer::Kind::constant, first}});
    };
    loss_scale_ = {scalar("loss_scale", scaling.initial), scalar("loss_scale_steps", 0),
                   scaling.interval};
  }

  static bool is_vector(Value parameter) { return parameter.shape().rank() <= 1; }

  // The backward walk reaches the last layers first: their gradients can be reduced first.
  void find_parameters() {
    for (const Graph::State& state : graph_->states()) {
      if (state.spec.role == StateSpec::Role::parameter && state.spec.trainable) {
        parameters_.push_back(state.value);
      }
    }
    std::reverse(parameters_.begin(), parameters_.end());
  }

  // Sums over ranks. The ranks' notes stand in front of the first bucket, so that they never make a
  // collective of their own.
  std::vector<Value> reduced_gradients() {
    std::vector<Value> all = std::move(gradients_);
    if (notes_.valid()) all.insert(all.begin(), notes_);
    all = assembly_.parallelism->reduce(step_build(parts_ - 1), std::move(all));
    if (notes_.valid()) {
      graph_->fetch("notes", all.front());
      all.erase(all.begin());
    }
    return all;
  }

  // Guards, updates, fetches.
  void finish() {
    const EmitIn stage(*graph_, Phase::update);
    const auto grads = reduced_gradients();
    // Gradients of a scaled loss stay as they are: their norm and what they are multiplied with in
    // the update carry the scale's inverse, so that no pass over them is needed.
    const bool scaled = loss_scale_.value.valid();
    const Value inverse = scaled ? ops::reciprocal(loss_scale_.value) : Value();
    Value squared = ops::squared_norm(grads);
    const Value ok = ops::all_finite({loss_, squared});
    if (scaled) squared = ops::scale_by(ops::scale_by(squared, inverse), inverse);
    const Optimizer& optimizer = *assembly_.optimizer;
    Value coefficient = inverse;
    if (optimizer.clip) {
      coefficient = ops::clip_coefficient(squared, *optimizer.clip);
      if (scaled) coefficient = ops::scale_by(coefficient, inverse);
    }
    const auto update = optimizer.update();
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Value parameter = parameters_[i];
      std::vector<Value> slots;
      for (const std::string& slot : optimizer.slots()) {
        slots.push_back(graph_->state({.role = StateSpec::Role::slot,
                                       .name = parameter.node().name + "." + slot,
                                       .type = {parameter.dtype(), parameter.shape()}}));
      }
      const TensorPolicy policy = optimizer.policy(parameter.node().name, parameter.shape().rank());
      ops::optimizer_update(parameter, slots, grads[i], rate_, coefficient, ok, build_.step, update,
                            policy.rate_factor, policy.decay);
    }
    for (const auto& write : build_.at_end) write(ok);
    if (head_) head_half_->finish(head_->scope, ok);
    if (scaled) {
      report_scalar(*graph_, "loss_scale", loss_scale_.value);
      ops::update_loss_scale(loss_scale_.value, loss_scale_.steps, ok,
                             {.interval = loss_scale_.interval});
    }

    graph_->fetch("loss", loss_);
    graph_->fetch("gradient_norm", ops::sqrt(squared));
    graph_->fetch("ok", ok);
  }

  const Assembly& assembly_;
  std::int64_t classes_, batch_, parts_;
  std::unique_ptr<Graph> graph_ = std::make_unique<Graph>();
  Build build_;
  std::shared_ptr<const Margin> margin_ = assembly_.head->margin();
  std::unique_ptr<HeadGraph> head_half_ = assembly_.head->graph_half();
  std::optional<HeadStep> head_;  // once build_ is as it stays
  Value image_, label_, rate_;
  Value notes_;                    // invalid with one rank
  std::vector<Value> parameters_;  // last first
  std::vector<Value> gradients_;   // of the parts so far
  PartialGradients so_far_;
  struct {
    Value value, steps;  // invalid where the loss is not scaled
    std::int64_t interval = 0;
  } loss_scale_;
  Value loss_;
};

}  // namespace

std::unique_ptr<Graph> training_graph(const Assembly& assembly, std::int64_t classes, int rank,
                                      int ranks) {
  return StepGraph(assembly, classes, rank, ranks).run();
}

std::unique_ptr<Graph> evaluation_graph(const Assembly& assembly, std::int64_t batch) {
  auto graph = std::make_unique<Graph>();
  const std::int64_t size = assembly.data.image_size;
  const Value image = graph->input("image", {DType::u8, {batch, size, size, 3}});
  const Value step = graph->input("step", {DType::i64, {}});
  Build build{.graph = *graph, .training = false};
  const Value pixels =
      ops::image_normalize(image, step, {.mean = assembly.data.mean, .scale = assembly.data.scale});
  const Value embedding = assembly.backbone->forward(Scope(build), pixels);
  check_embedding(embedding, batch);
  graph->fetch("embedding", embedding);
  return graph;
}

std::int64_t embedding_width(const Graph& evaluation) {
  const auto& fetches = evaluation.fetches();
  const auto embedding = std::find_if(fetches.begin(), fetches.end(),
                                      [](const auto& f) { return f.name == "embedding"; });
  return embedding->value.shape()[1];
}

}  // namespace ftrain
