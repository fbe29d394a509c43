#include "plugins/devices/cpu/rewrite/layouts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/layout.h"
#include "step.h"

namespace ftrain::cpu {
namespace {

const StateStore::Entry& entry_of(const StateStore& store, const std::string& name) {
  for (const StateStore::Entry& entry : store.entries()) {
    if (entry.spec.name == name) return entry;
  }
  throw std::logic_error("no state " + name);
}

TEST(Layouts, KeepTheStepsResults) {
  Graph graph;
  build_step(graph, true);
  Tensors fast = run_steps(*open_device(), graph, 3);
  Tensors plain = run_steps(*open_device("reference"), graph, 3);
  ASSERT_EQ(fast.size(), plain.size());
  for (const auto& [name, values] : plain) {
    EXPECT_LT(distance(fast[name], values), 1e-4) << name;
  }
}

TEST(Layouts, MoveActivationsOnceAndWeightsNever) {
  Graph graph;
  build_step(graph, true);
  const auto device = open_device();
  const Program program = device->prepare(graph, nullptr, nullptr);
  std::vector<std::string> moved;
  for (std::int32_t i = 0; i < program.graph->size(); ++i) {
    const Node& node = program.graph->node(i);
    if (node.op->name == "reorder") {
      moved.push_back(node.input(0).text() + " to " + node.outputs[0].layout);
    }
    if (node.op->name.starts_with("batch_norm") && node.outputs[0].shape.rank() == 4) {
      EXPECT_EQ(node.outputs[0].layout, blocked_layout(preferred_block(best_isa()))) << node.index;
    }
  }
  // Into the flattened product and back out of it.
  EXPECT_EQ(moved.size(), 2u) << testing::PrintToString(moved) << program.text();
  for (const Graph::State& state : program.graph->states()) {
    const std::string& name = state.spec.name;
    const bool convolution = name.starts_with("conv") || name.starts_with("depthwise");
    EXPECT_EQ(!state.spec.type.layout.empty(), convolution) << name;
  }
}

TEST(Layouts, SlotsLieAsTheirParameter) {
  Graph graph;
  build_step(graph, true);
  const auto device = open_device();
  const auto store = device->make_store();
  device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
  for (const char* name : {"conv1", "conv2", "depthwise", "fc", "prelu1"}) {
    EXPECT_EQ(entry_of(*store, name).spec.type.layout,
              entry_of(*store, std::string(name) + ".momentum").spec.type.layout)
        << name;
  }
}

TEST(Layouts, ASecondProgramSharesTheStoresLayouts) {
  const auto device = open_device();
  const auto store = device->make_store();
  Graph evaluation, training;
  build_step(evaluation, false, 7);
  build_step(training, true);
  const auto first =
      device->compile(device->prepare(evaluation, store.get(), nullptr), *store, nullptr);
  const auto second =
      device->compile(device->prepare(training, store.get(), nullptr), *store, nullptr);
  fill_states(*store);
  fill_inputs(*first);
  fill_inputs(*second);
  const Tensors before = results(*first, *store);
  second->run();
  first->run();
  const Tensors after = results(*first, *store);
  EXPECT_NE(before.at("conv2"), after.at("conv2"));

  const auto oracle = open_device("reference");
  const auto plain = oracle->make_store();
  const auto plain_first =
      oracle->compile(oracle->prepare(evaluation, plain.get(), nullptr), *plain, nullptr);
  const auto plain_second =
      oracle->compile(oracle->prepare(training, plain.get(), nullptr), *plain, nullptr);
  fill_states(*plain);
  fill_inputs(*plain_first);
  fill_inputs(*plain_second);
  plain_second->run();
  plain_first->run();
  EXPECT_LT(distance(after.at("embedding"), results(*plain_first, *plain).at("embedding")), 1e-4);
}

// A copy of a state that was made before a write must not be used after it.
TEST(Layouts, ReadAStateAgainAfterItsWrite) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, Shape{2, 32, 6, 6}});
  const Shape shape{32, 32, 3, 3};
  const Value w = graph.state({.name = "w", .type = {DType::f32, shape}});
  const Value m =
      graph.state({.role = StateSpec::Role::slot, .name = "m", .type = {DType::f32, shape}});
  const Value y = ops::conv2d(x, w, {.padding = 1});
  graph.fetch("before",
              ops::matmul(ops::reshape(w, {32, 288}), ops::reshape(w, {32, 288}), false, true));
  const Value one = ops::constant(graph, 1);
  ops::optimizer_update(w, {m}, ops::conv2d_weight_grad(y, x, shape, {.padding = 1}), one, {}, one,
                        {}, std::make_shared<TestMomentum>(), 1, 0);
  graph.fetch("after",
              ops::matmul(ops::reshape(w, {32, 288}), ops::reshape(w, {32, 288}), true, false));
  Tensors fast = run_steps(*open_device(), graph);
  Tensors plain = run_steps(*open_device("reference"), graph);
  for (const auto& [name, values] : plain) EXPECT_LT(distance(fast[name], values), 1e-5) << name;
}

}  // namespace
}  // namespace ftrain::cpu
