// Activations that the backward walk makes again: the same numbers from less memory.
#include <gtest/gtest.h>

#include "core/compile/passes.h"
#include "core/compile/recompute.h"
#include "ftrain/config/table.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/model/backbone.h"
#include "ftrain/plugin/registry.h"
#include "plugins/devices/cpu/step.h"

namespace ftrain::cpu {
namespace {

constexpr const char* iresnet = "[backbone]\nplugin = \"iresnet\"\ndepth = 18\nembedding = 16\n";
constexpr const char* mobilefacenet =
    "[backbone]\nplugin = \"mobilefacenet\"\nscale = 1\nembedding = 16\n";

// A network's whole step: forward, gradients, an update of every parameter, running statistics. In
// parts as gradient accumulation makes them, each with its own samples.
std::unique_ptr<Graph> training_step(const char* text, std::int64_t batch, std::int64_t size,
                                     std::int64_t parts = 1) {
  static Registry registry({FTRAIN_PLUGINS});
  const auto backbone = registry.create<Backbone>(Job::parse(text));
  auto graph = std::make_unique<Graph>();
  const Value image = graph->input("image", {DType::f32, {parts * batch, 3, size, size}});
  Build build{.graph = *graph};
  std::vector<Value> parameters, found;
  Value one, total;
  for (std::int64_t part = 0; part < parts; ++part) {
    graph->set_stage({Phase::forward, static_cast<std::int32_t>(part)});
    const Value embedding =
        backbone->forward(Scope(build), ops::slice_rows(image, part * batch, batch));
    for (const Graph::State& state : graph->states()) {
      const bool trained = state.spec.role == StateSpec::Role::parameter && state.spec.trainable;
      if (part == 0 && trained) parameters.push_back(state.value);
    }
    const Value loss = ops::mean(ops::mul(embedding, ops::mul(embedding, embedding)));
    if (part == 0) one = ops::constant(*graph, 1);
    total = part == 0 ? loss : ops::add(total, loss);
    std::vector<Seed> seeds{{loss, one}};
    for (std::size_t i = 0; i < found.size(); ++i) seeds.push_back({parameters[i], found[i]});
    found = gradients(*graph, seeds, parameters);
  }
  graph->fetch("loss", total);
  graph->fetch("norm", ops::squared_norm(found));
  const Value rate = ops::constant(*graph, 0.01);
  const auto update = std::make_shared<TestMomentum>();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    StateSpec slot = graph->state_of(parameters[i])->spec;
    slot.role = StateSpec::Role::slot;
    slot.name += ".momentum";
    ops::optimizer_update(parameters[i], {graph->state(slot)}, found[i], rate, {}, one, {}, update,
                          1, 0);
  }
  for (const auto& write : build.at_end) write(one);
  return graph;
}

int count(const Graph& graph, std::string_view op) {
  int found = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) found += graph.node(i).op->name == op;
  return found;
}

void expect_same(const Tensors& a, const Tensors& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, values] : a) {
    EXPECT_EQ(0, std::memcmp(values.data(), b.at(name).data(), 4 * values.size()))
        << what << ": " << name;
  }
}

// The pass by itself: plain loops run both graphs.
class RecomputePass : public testing::TestWithParam<const char*> {};

TEST_P(RecomputePass, ChangesNoBit) {
  const auto device = open_device("reference");
  const auto graph = training_step(GetParam(), 2, GetParam() == iresnet ? 16 : 32);
  const Tensors plain = run_steps(*device, *graph, 2);
  ASSERT_TRUE(std::isfinite(plain.at("loss")[0]));
  for (const char* policy : {"none", "cheap", "block"}) {
    const auto rewritten = recompute(*graph, policy);
    expect_same(run_steps(*device, *rewritten, 2), plain, policy);
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, RecomputePass, testing::Values(iresnet, mobilefacenet));

TEST(Recompute, RepeatsWhatThePolicySays) {
  const auto graph = training_step(iresnet, 2, 32);
  const int convolutions = count(*graph, "conv2d"), norms = count(*graph, "batch_norm");
  const auto cheap = recompute(*graph, "cheap"), block = recompute(*graph, "block");
  EXPECT_EQ(count(*recompute(*graph, "none"), "batch_norm"), norms);
  EXPECT_EQ(count(*cheap, "conv2d"), convolutions);
  EXPECT_GT(count(*cheap, "batch_norm"), norms);
  EXPECT_GT(count(*block, "conv2d"), convolutions);
  for (const char* once : {"batch_moments", "update_running", "optimizer_update"}) {
    EXPECT_EQ(count(*cheap, once), count(*graph, once)) << once;
    EXPECT_EQ(count(*block, once), count(*graph, once)) << once;
  }
}

// Before 1x1 and depthwise convolutions nothing is cheap enough.
TEST(Recompute, CheapLeavesMobileFaceNetAlone) {
  const auto graph = remove_dead(*merge_common(*training_step(mobilefacenet, 2, 32)));
  EXPECT_EQ(recompute(*graph, "cheap")->text(), graph->text());
}

TEST(Recompute, AForwardGraphStaysAsItIs) {
  Graph graph;
  build_step(graph, false);
  for (const char* policy : {"cheap", "block"}) {
    EXPECT_EQ(recompute(graph, policy)->text(), remove_dead(graph)->text());
  }
}

// Every part of a step as if it were alone.
TEST(Recompute, TakesPartByPart) {
  const auto alone = training_step(iresnet, 2, 32), whole = training_step(iresnet, 2, 32, 3);
  const auto repeated = [](const Graph& graph, const char* policy, const char* op) {
    return count(*recompute(graph, policy), op) - count(graph, op);
  };
  for (const char* op : {"conv2d", "batch_norm", "prelu", "add"}) {
    EXPECT_EQ(repeated(*whole, "cheap", op), 3 * repeated(*alone, "cheap", op)) << op;
  }
  // No part can repeat more than all of its convolutions.
  EXPECT_GT(repeated(*whole, "block", "conv2d"), 2 * count(*alone, "conv2d"));
  const auto device = open_device("reference");
  const auto small = training_step(mobilefacenet, 2, 32, 2);
  const Tensors plain = run_steps(*device, *small, 1);
  ASSERT_TRUE(std::isfinite(plain.at("loss")[0]));
  expect_same(run_steps(*device, *recompute(*small, "block"), 1), plain, "block");
}

// What a gradient needs of a parameter that is written before it cannot be made again.
TEST(Recompute, AWrittenParameterIsReadOnce) {
  Graph graph;
  const Value gamma = graph.state({.name = "gamma", .type = {DType::f32, {8}}});
  const Value beta = graph.state({.name = "beta", .type = {DType::f32, {8}}});
  const Value weight = graph.state({.name = "weight", .type = {DType::f32, {8, 8, 3, 3}}});
  const Value x = graph.input("x", {DType::f32, {2, 8, 6, 6}});
  const Value y = ops::batch_norm(x, ops::batch_moments(x), gamma, beta, {});
  const Value loss = ops::mean(ops::conv2d(y, weight, {.padding = 1}));
  graph.fetch("loss", loss);
  const Value one = ops::constant(graph, 1);
  ops::optimizer_update(gamma, {}, gamma, one, {}, one, {}, std::make_shared<TestMomentum>(), 1, 0);
  const Seed seed{loss, one};
  const Value target[] = {weight};
  graph.fetch("gradient", gradients(graph, {&seed, 1}, target)[0]);
  EXPECT_EQ(count(*recompute(graph, "cheap"), "batch_norm"), 1);
  EXPECT_EQ(count(*recompute(graph, "block"), "batch_norm"), 1);
}

struct Outcome {
  Tensors results;
  std::size_t arena = 0;
};

Outcome run_on_device(const char* network, const std::string& policy, int steps) {
  const auto device = open_device();
  device->recompute = policy;
  const auto graph = training_step(network, 4, 48);
  return {run_steps(*device, *graph, steps),
          device->prepare(*graph, nullptr, nullptr).plan.arena_bytes};
}

TEST(Recompute, SameBitsFromASmallerArenaOnTheDevice) {
  const Outcome none = run_on_device(iresnet, "none", 3),
                cheap = run_on_device(iresnet, "cheap", 3),
                block = run_on_device(iresnet, "block", 3);
  ASSERT_TRUE(std::isfinite(none.results.at("loss")[0]));
  expect_same(cheap.results, none.results, "cheap");
  expect_same(block.results, none.results, "block");
  EXPECT_LT(cheap.arena, none.arena);
  EXPECT_LT(block.arena, none.arena);
}

// By block, fused kernels stand elsewhere than without, and round elsewhere.
TEST(Recompute, NearlyTheSameWhereOtherKernelsAreFused) {
  const Outcome none = run_on_device(mobilefacenet, "none", 1),
                cheap = run_on_device(mobilefacenet, "cheap", 1),
                block = run_on_device(mobilefacenet, "block", 1);
  expect_same(cheap.results, none.results, "cheap");
  EXPECT_LT(block.arena, none.arena);
  EXPECT_LT(distance(block.results.at("loss"), none.results.at("loss")), 1e-4);
}

}  // namespace
}  // namespace ftrain::cpu
