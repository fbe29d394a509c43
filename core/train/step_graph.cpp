#include "core/train/step_graph.h"

#include <algorithm>

#include "core/graph/gradients.h"
#include "core/graph/ops.h"

namespace ftrain {
namespace {

void check_embedding(Value embedding, std::int64_t batch) {
  if (embedding.shape().rank() == 2 && embedding.shape()[0] == batch) return;
  throw ShapeError("[backbone]: forward() must return [" + std::to_string(batch) +
                   ", width], it returned " + embedding.type().text());
}

// Batch-norm statistics as [parallelism] batch_norm says.
void set_statistics(Build& build, const Assembly& assembly) {
  const auto& choice = assembly.parallelism->batch_norm;
  if (const auto* samples = std::get_if<std::int64_t>(&choice)) {
    if (assembly.data.batch % *samples != 0) {
      throw ConfigError(
          "[parallelism] batch_norm: groups of " + std::to_string(*samples) +
          " samples do not divide [dataset] batch = " + std::to_string(assembly.data.batch));
    }
    build.norm_groups = assembly.data.batch / *samples;
  } else {
    build.global_norm = std::get<std::string>(choice) == "global";
  }
}

}  // namespace

std::unique_ptr<Graph> training_graph(const Assembly& assembly, std::int64_t classes, int rank,
                                      int ranks) {
  auto graph = std::make_unique<Graph>();
  const std::int64_t batch = assembly.data.batch, size = assembly.data.image_size;
  const Value image = graph->input("image", {DType::u8, {batch, size, size, 3}});
  const Value label = graph->input("label", {DType::i64, {batch}});
  const Value rate = graph->input("rate", {DType::f32, {}});
  const Value step = graph->input("step", {DType::i64, {}});

  Build build{.graph = *graph};
  build.seed = assembly.seed();
  build.step = step;
  build.rank = rank;
  build.ranks = ranks;
  build.first_sample = rank * batch;
  set_statistics(build, assembly);
  const Value pixels = ops::image_normalize(image, step,
                                            {.mean = assembly.data.mean,
                                             .scale = assembly.data.scale,
                                             .flip = assembly.data.flip,
                                             .seed = assembly.seed(),
                                             .first_sample = build.first_sample});
  const Value embedding = assembly.backbone->forward(Scope(build), pixels);
  check_embedding(embedding, batch);
  std::vector<Value> parameters;
  for (const Graph::State& state : graph->states()) {
    if (state.spec.role == StateSpec::Role::parameter && state.spec.trainable) {
      parameters.push_back(state.value);
    }
  }

  const StepBuild step_build{*graph,
                             rank,
                             ranks,
                             batch,
                             classes,
                             assembly.seed(),
                             step,
                             rate,
                             *assembly.optimizer,
                             assembly.head->margin()};
  PartialGradients so_far;
  const ClassCenterStep centers =
      assembly.parallelism->class_centers(step_build, embedding, label, so_far);

  // The backward walk reaches the last layers first: their gradients can be reduced first.
  std::reverse(parameters.begin(), parameters.end());
  std::vector<Value> grads = gradients(*graph, centers.seeds, parameters);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].valid()) {
      throw ShapeError("[backbone]: the embedding does not depend on the parameter '" +
                       parameters[i].node().name + "'");
    }
  }
  grads = assembly.parallelism->reduce(step_build, std::move(grads));
  const Value squared = ops::squared_norm(grads);
  const Value ok = ops::all_finite({centers.loss, squared});
  const Optimizer& optimizer = *assembly.optimizer;
  const Value coefficient =
      optimizer.clip ? ops::clip_coefficient(squared, *optimizer.clip) : Value();
  const auto update = optimizer.update();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Value parameter = parameters[i];
    std::vector<Value> slots;
    for (const std::string& slot : optimizer.slots()) {
      slots.push_back(graph->state({.role = StateSpec::Role::slot,
                                    .name = parameter.node().name + "." + slot,
                                    .type = {parameter.dtype(), parameter.shape()}}));
    }
    const TensorPolicy policy = optimizer.policy(parameter.node().name, parameter.shape().rank());
    ops::optimizer_update(parameter, slots, grads[i], rate, coefficient, ok, update,
                          policy.rate_factor, policy.decay);
  }
  for (const auto& write : build.at_end) write(ok);

  graph->fetch("loss", centers.loss);
  graph->fetch("gradient_norm", ops::sqrt(squared));
  graph->fetch("ok", ok);
  return graph;
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

}  // namespace ftrain
