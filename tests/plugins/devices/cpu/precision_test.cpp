// bf16 on the CPU device: what the precision pass makes of a graph, and that training in bf16
// follows training in f32. Kernels of bf16 are tested with all others, in ops_test.cpp.
#include "core/compile/precision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "ftrain/base/error.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "step.h"
#include "tests/plugins/devices/cpu/interpreter.h"

namespace ftrain::cpu {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string dtypes(const std::vector<TensorType>& types) {
  std::string text;
  for (const TensorType& type : types) text += std::string(name_of(type.dtype)) + " ";
  return text;
}

// The element types of a node: "bf16 f32 -> bf16 ".
std::string signature(const Node& node) {
  std::vector<TensorType> inputs;
  for (const Value& input : node.inputs) {
    if (input.valid()) inputs.push_back(input.type());
  }
  return dtypes(inputs) + "-> " + dtypes(node.outputs);
}

std::set<std::string> signatures(const Graph& graph, std::string_view op) {
  std::set<std::string> found;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (graph.node(i).op->name == op) found.insert(signature(graph.node(i)));
  }
  return found;
}

using Signatures = std::set<std::string>;

TEST(LowerPrecision, ActivationsAreBf16AndEverythingElseF32) {
  Graph graph;
  build_step(graph, true);
  const auto low = lower_precision(graph, DType::bf16);
  EXPECT_EQ(signatures(*low, "conv2d"), Signatures{"bf16 f32 -> bf16 "});
  EXPECT_EQ(signatures(*low, "conv2d_input_grad"), Signatures{"bf16 f32 -> bf16 "});
  EXPECT_EQ(signatures(*low, "conv2d_weight_grad"), Signatures{"bf16 bf16 -> f32 "});
  EXPECT_EQ(signatures(*low, "batch_moments"), Signatures{"bf16 -> f32 f32 "});
  EXPECT_EQ(signatures(*low, "batch_norm"), Signatures{"bf16 f32 f32 f32 f32 -> bf16 "});
  EXPECT_EQ(signatures(*low, "batch_norm_sums"), Signatures{"bf16 bf16 f32 f32 -> f32 f32 "});
  EXPECT_EQ(signatures(*low, "batch_norm_input_grad"),
            Signatures{"bf16 bf16 f32 f32 f32 f32 f32 -> bf16 "});
  EXPECT_EQ(signatures(*low, "prelu_grad"), Signatures{"bf16 bf16 f32 -> bf16 f32 "});
  EXPECT_EQ(signatures(*low, "relu"), Signatures{"bf16 -> bf16 "});
  EXPECT_EQ(signatures(*low, "matmul"), Signatures{"f32 f32 -> f32 "});
  EXPECT_EQ(signatures(*low, "optimizer_update"), Signatures{"f32 f32 f32 f32 f32 -> "});
  ASSERT_EQ(low->states().size(), graph.states().size());
  for (std::size_t i = 0; i < graph.states().size(); ++i) {
    EXPECT_EQ(low->states()[i].spec.name, graph.states()[i].spec.name);
    EXPECT_EQ(low->states()[i].spec.type, graph.states()[i].spec.type);
  }
  for (const Graph::Named& fetch : low->fetches()) EXPECT_EQ(fetch.value.dtype(), DType::f32);
}

TEST(LowerPrecision, ToF16IsTheSameGraph) {
  Graph graph;
  build_step(graph, true);
  std::string expected = lower_precision(graph, DType::bf16)->text();
  for (std::size_t at = 0; (at = expected.find("bf16", at)) != std::string::npos;) {
    expected.erase(at, 1);
  }
  EXPECT_EQ(lower_precision(graph, DType::f16)->text(), expected);
  EXPECT_THAT(expected, HasSubstr("f16"));
}

// Makes a graph one that trains: an evaluation stays in f32.
void write_a_state(Graph& graph) {
  const Value one = ops::constant(graph, 1);
  const Value count = graph.state({.name = "count", .type = {DType::f32, {}}});
  const Value slot = graph.state(
      {.role = StateSpec::Role::slot, .name = "count.momentum", .type = {DType::f32, {}}});
  ops::optimizer_update(count, {slot}, one, one, {}, one, {}, std::make_shared<TestMomentum>(), 1,
                        0);
}

TEST(LowerPrecision, EvaluationsStayInF32) {
  Graph graph;
  build_step(graph, false);
  EXPECT_EQ(lower_precision(graph, DType::bf16)->text(), graph.text());
}

TEST(LowerPrecision, ImagesArriveInBf16) {
  Graph graph;
  write_a_state(graph);
  const Value image = graph.input("image", {DType::u8, Shape{2, 8, 8, 3}});
  const Value step = graph.input("step", {DType::i64, {}});
  const Value weight = graph.state({.name = "w", .type = {DType::f32, {16, 3, 3, 3}}});
  const Value pixels = ops::image_normalize(image, step, {});
  graph.fetch("y", ops::conv2d(pixels, weight, {.padding = 1}));
  const auto low = lower_precision(graph, DType::bf16);
  EXPECT_EQ(signatures(*low, "image_normalize"), Signatures{"u8 i64 -> bf16 "});
  // What is read from outside is f32 as before.
  EXPECT_EQ(signatures(*low, "cast"), Signatures{"bf16 -> f32 "});
  EXPECT_EQ(low->fetches()[0].value.dtype(), DType::f32);
}

TEST(LowerPrecision, OtherOpsComputeInF32BetweenCastsThatAreMadeOnce) {
  Graph graph;
  write_a_state(graph);
  const Value x = graph.input("x", {DType::f32, Shape{2, 16, 4, 4}});
  const Value weight = graph.state({.name = "w", .type = {DType::f32, {16, 16, 1, 1}}});
  const Value y = ops::conv2d(x, weight, {});
  const Value rows = ops::flatten(y);
  graph.fetch("product", ops::matmul(rows, rows, false, true));
  graph.fetch("sum", ops::sum(y));
  graph.fetch("z", ops::conv2d(ops::reshape(rows, {2, 16, 4, 4}), weight, {}));
  const auto low = lower_precision(graph, DType::bf16);
  EXPECT_EQ(signatures(*low, "reshape"), Signatures{"f32 -> f32 "});
  EXPECT_EQ(signatures(*low, "sum"), Signatures{"f32 -> f32 "});
  int casts = 0;
  for (std::int32_t i = 0; i < low->size(); ++i) casts += low->node(i).op->name == "cast";
  EXPECT_EQ(casts, 4);  // x down, y up, what was reshaped down, z up
}

TEST(LowerPrecision, WeightsGradientsAreAddedInF32) {
  Graph graph;
  write_a_state(graph);
  const Value x = graph.input("x", {DType::f32, Shape{2, 16, 4, 4}});
  const Value weight = graph.state({.name = "w", .type = {DType::f32, {16, 16, 1, 1}}});
  const Value y = ops::conv2d(ops::conv2d(x, weight, {}), weight, {});
  const Seed seed{y, y};
  graph.fetch("gradient", gradients(graph, {&seed, 1}, {&weight, 1})[0]);
  const auto low = lower_precision(graph, DType::bf16);
  EXPECT_EQ(signatures(*low, "add"), Signatures{"f32 f32 -> f32 "});
}

TEST(LowerPrecision, GraphsWithoutImagesStayAsTheyAre) {
  Graph graph;
  write_a_state(graph);
  const Value x = graph.input("x", {DType::f32, Shape{4, 8}});
  const Value weight = graph.state({.name = "w", .type = {DType::f32, {8, 8}}});
  graph.fetch("y", ops::relu(ops::linear(x, weight)));
  EXPECT_EQ(lower_precision(graph, DType::bf16)->text(), graph.text());
}

// The length of the difference over that of the second: single elements of bf16 may well differ.
double relative(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, length = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    length += double(b[i]) * b[i];
  }
  return std::sqrt(difference / std::max(length, 1e-30));
}

std::unique_ptr<CpuDevice> open_bf16(const std::string& kernels = "auto") {
  auto device = std::make_unique<CpuDevice>();
  device->threads = 2;
  device->precision = "bf16";
  device->kernel_choice = kernels;
  device->autotune = false;
  device->open(0, 1);
  return device;
}

#define FTRAIN_NEEDS_BF16() \
  if (!has_bf16()) GTEST_SKIP() << "this processor has no dot products of bf16"

TEST(Bf16, IsRefusedWithTheReason) {
  CpuDevice device;
  device.precision = "bf16";
  device.isa = "avx2";
  if (best_isa() == "plain") device.isa = "plain";
  std::string message;
  try {
    device.open(0, 1);
  } catch (const DeviceError& error) {
    message = error.what();
  }
  EXPECT_THAT(message, AllOf(HasSubstr("precision = \"bf16\""), HasSubstr("dot products of bf16"),
                             HasSubstr("set "), HasSubstr("fp32")));
  if (has_bf16()) {
    EXPECT_THAT(message, HasSubstr("isa = \"avx2\""));
  }
}

// One step from parameters and images that bf16 holds.
Tensors step_from_bf16(CpuDevice& device, const Graph& graph, std::string* kernels = nullptr) {
  const auto store = device.make_store();
  const auto executable =
      device.compile(device.prepare(graph, store.get(), nullptr), *store, nullptr);
  const auto values = [](const TensorType& type, const std::string& name) {
    std::vector<float> made = noise(type.shape.elements(), seed_of(name));
    for (float& x : made) x = to_f32(to_bf16(x));
    return made;
  };
  for (const StateStore::Entry& entry : store->entries()) {
    store->write(entry.spec.name, values(entry.spec.type, entry.spec.name).data());
  }
  for (const Graph::Named& input : executable->program().graph->inputs()) {
    executable->write(input.name, values(input.value.type(), input.name).data());
  }
  executable->run();
  if (kernels != nullptr) *kernels = executable->program().kernels_text();
  return results(*executable, *store);
}

// From numbers that bf16 holds, weights need no rounding. Fused kernels do not round what lies
// between the ops that they stand for, so they differ from plain loops by a few roundings to bf16.
TEST(Bf16, AStepComesOutAsByPlainLoops) {
  FTRAIN_NEEDS_BF16();
  Graph graph;
  build_step(graph, true);
  std::string kernels;
  const Tensors fast = step_from_bf16(*open_bf16(), graph, &kernels);
  EXPECT_THAT(kernels, HasSubstr("onednn"));
  for (const auto& [name, values] : step_from_bf16(*open_bf16("reference"), graph)) {
    const bool result = name == "embedding" || name == "loss" || name == "norm";
    EXPECT_LT(relative(fast.at(name), values), result ? 0.01 : 0.1) << name;
  }
}

// Batch norms' gradients are small differences of large sums, so they feel bf16 most.
TEST(Bf16, AStepIsCloseToOneInF32) {
  FTRAIN_NEEDS_BF16();
  Graph graph;
  build_step(graph, true);
  const Tensors half = run_steps(*open_bf16(), graph);
  const Tensors full = run_steps(*open_device("reference"), graph);
  for (const auto& [name, values] : full) {
    EXPECT_LT(relative(half.at(name), values), 0.3) << name;
  }
  for (const char* name : {"embedding", "loss", "norm"}) {
    EXPECT_LT(relative(half.at(name), full.at(name)), 0.01) << name;
  }
  EXPECT_GT(relative(half.at("embedding"), full.at("embedding")), 1e-4);  // not f32 in secret
}

TEST(Bf16, RunsABitIdenticalStepTwice) {
  FTRAIN_NEEDS_BF16();
  Graph graph;
  build_step(graph, true);
  EXPECT_EQ(run_steps(*open_bf16(), graph, 3), run_steps(*open_bf16(), graph, 3));
}

// Evaluation in f32 between training steps in bf16, on one store with one order of the weights.
TEST(Bf16, EvaluationSharesTheWeights) {
  FTRAIN_NEEDS_BF16();
  const auto device = open_bf16();
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
  second->run();
  first->refresh();
  first->run();
  const Tensors found = results(*first, *store);

  const auto oracle = open_bf16("reference");
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
  // Between the two lies a step, whose gradients bf16 changes a little.
  EXPECT_LT(relative(found.at("embedding"), results(*plain_first, *plain).at("embedding")), 0.1);
}

// Losses of `steps` steps of a small network that learns to make its embedding small.
std::vector<double> losses(CpuDevice& device, int steps) {
  Graph graph;
  build_step(graph, true);
  const auto store = device.make_store();
  const auto executable =
      device.compile(device.prepare(graph, store.get(), nullptr), *store, nullptr);
  fill_states(*store);
  fill_inputs(*executable);
  std::vector<double> found;
  for (int i = 0; i < steps; ++i) {
    executable->run();
    float loss = 0;
    executable->read("loss", &loss);
    found.push_back(loss);
  }
  return found;
}

TEST(Bf16, TrainingFollowsTheCurveOfF32) {
  FTRAIN_NEEDS_BF16();
  const std::vector<double> half = losses(*open_bf16(), 30), full = losses(*open_device(), 30);
  EXPECT_LT(full.back(), 0.5 * full.front());  // it learns
  for (std::size_t i = 0; i < full.size(); ++i) {
    EXPECT_NEAR(half[i], full[i], 0.05 * full[i] + 0.01 * full[0]) << "step " << i;
  }
}

}  // namespace
}  // namespace ftrain::cpu
