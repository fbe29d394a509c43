// 16 bits on the CUDA device, on the stand-in for a GPU: which copies of weights the last pass puts
// in, that the update keeps them as the weights are, and steps in bf16 and fp16 beside f32.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/compile/cached.h"
#include "core/compile/merge_updates.h"
#include "core/compile/precision.h"
#include "ftrain/device/plan.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cuda/device/device.h"
#include "plugins/devices/cuda/rewrite/working_copies.h"
#include "tests/cuda/device_payloads.h"
#include "tests/plugins/devices/cpu/case_payloads.h"

namespace ftrain::cuda {
namespace {

using Floats = std::vector<float>;
using Strings = std::vector<std::string>;

struct Network {
  bool trains = true;
  bool first_is_frozen = false;
  double loss_scale = 0;  // 0: not scaled
};

// A dense convolution of images, one of eight channels, a depthwise one, a batch norm and a PReLU;
// the mean square of what comes out, and its gradient by all that is not frozen.
std::unique_ptr<Graph> network(const Network& of) {
  put_payloads_on_device();
  auto made = std::make_unique<Graph>();
  Graph& graph = *made;
  std::vector<Value> parameters;
  const auto parameter = [&](const std::string& name, Shape shape, double mean, double deviation) {
    const bool frozen = of.first_is_frozen && name == "first";
    const Value value = graph.state({.name = name,
                                     .type = {DType::f32, std::move(shape)},
                                     .initializer = {Initializer::Kind::normal, mean, deviation},
                                     .trainable = !frozen});
    if (!frozen) parameters.push_back(value);
    return value;
  };
  const Value image = graph.input("image", {DType::f32, {2, 3, 8, 8}});
  Value x = ops::conv2d(image, parameter("first", {8, 3, 3, 3}, 0, 0.3), {.padding = 1});
  x = ops::batch_norm(x, ops::batch_moments(x), parameter("gamma", {8}, 1, 0.1),
                      parameter("beta", {8}, 0, 0.1), {});
  x = ops::prelu(x, parameter("slope", {8}, 0.2, 0.1));
  x = ops::conv2d(x, parameter("narrow", {8, 1, 3, 3}, 0, 0.3), {.padding = 1, .groups = 8});
  x = ops::conv2d(x, parameter("second", {16, 8, 1, 1}, 0, 0.3), {});
  const Value y = ops::global_average_pool(x);
  graph.fetch("y", y);
  if (!of.trains) return made;

  const Value loss = ops::mean(ops::mul(y, y));
  graph.fetch("loss", loss);
  Value seed = ops::constant(graph, 1), inverse;
  Value scale, steps;
  if (of.loss_scale > 0) {
    const auto scalar = [&](const char* name, double first) {
      return graph.state({.role = StateSpec::Role::slot,
                          .name = name,
                          .type = {DType::f32, {}},
                          .initializer = {Initializer::Kind::constant, first}});
    };
    scale = scalar("loss_scale", of.loss_scale), steps = scalar("loss_scale_steps", 0);
    seed = ops::scale_by(seed, scale);
    inverse = ops::reciprocal(scale);
  }
  const Seed seeds{loss, seed};
  const std::vector<Value> found = gradients(graph, {&seeds, 1}, parameters);
  const Value ok = ops::all_finite({loss, ops::squared_norm(found)});
  graph.fetch("ok", ok);
  const auto update = std::make_shared<cpu::MomentumUpdate>();
  const Value rate = ops::constant(graph, 0.05);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    StateSpec slot = graph.state_of(parameters[i])->spec;
    slot.role = StateSpec::Role::slot;
    slot.name += ".momentum";
    slot.initializer = {};
    ops::optimizer_update(parameters[i], {graph.state(slot)}, found[i], rate, inverse, ok, {},
                          update, 1, 0.01);
  }
  if (scale.valid()) ops::update_loss_scale(scale, steps, ok, {});
  return made;
}

std::vector<const Node*> nodes_of(const Graph& graph, std::string_view op) {
  std::vector<const Node*> found;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (graph.node(i).op->name == op) found.push_back(&graph.node(i));
  }
  return found;
}

class WorkingCopiesOf : public testing::TestWithParam<DType> {
 protected:
  Rewritten copies(const Network& of) const {
    return add_working_copies(*merge_updates(*lower_precision(*network(of), GetParam())));
  }
};

// The weight that a convolution reads: its name, and the type in which it is read.
std::string weight_of(const Node& convolution) {
  const Value weight = convolution.inputs[1];
  const bool copied = weight.node().op->name == "cast";
  return (copied ? weight.node().inputs[0] : weight).node().name + " " +
         std::string(name_of(weight.dtype()));
}

TEST_P(WorkingCopiesOf, DenseWeightsAreKeptAndWrittenByTheUpdate) {
  const auto [graph, kept] = copies({});
  const std::string type(name_of(GetParam()));
  std::set<std::string> read;
  for (const char* op : {"conv2d", "conv2d_input_grad"}) {
    for (const Node* node : nodes_of(*graph, op)) read.insert(weight_of(*node));
  }
  EXPECT_EQ(read, (std::set<std::string>{"first " + type, "second " + type, "narrow f32"}));
  // Each is cast once, and that is kept; other casts are none of weights.
  Strings names;
  for (const Node* node : nodes_of(*graph, "cast")) {
    const bool of_state = graph->state_of(node->inputs[0]) != nullptr;
    EXPECT_EQ(kept[static_cast<std::size_t>(node->index)], of_state);
    if (of_state) names.push_back(node->name);
  }
  EXPECT_THAT(names, testing::UnorderedElementsAre("first", "second"));
  EXPECT_TRUE(nodes_of(*graph, "optimizer_update").empty());
  const auto updates = nodes_of(*graph, "optimizer_update_many");
  ASSERT_EQ(updates.size(), 1u);
  const ManyUpdates many(*updates[0]);
  ASSERT_TRUE(many.copies);
  const std::vector<int> written = written_inputs(*updates[0]);
  for (std::size_t t = 0; t < many.tensors; ++t) {
    const Value parameter = updates[0]->inputs[many.parameter(t)];
    const Value copy = updates[0]->inputs[many.copy(t)];
    const std::string& name = parameter.node().name;
    ASSERT_EQ(copy.valid(), name == "first" || name == "second") << name;
    if (!copy.valid()) continue;
    EXPECT_EQ(copy.node().inputs[0], parameter);
    EXPECT_TRUE(kept[static_cast<std::size_t>(copy.node_index())]);
    EXPECT_THAT(written, testing::Contains(static_cast<int>(many.copy(t))));
  }
}

TEST_P(WorkingCopiesOf, FrozenWeightsAreKeptAlone) {
  const auto [graph, kept] = copies({.first_is_frozen = true});
  int frozen = 0;
  for (const Node* node : nodes_of(*graph, "cast")) {
    if (node->name != "first") continue;
    ++frozen;
    EXPECT_TRUE(kept[static_cast<std::size_t>(node->index)]);
    for (const Node* update : nodes_of(*graph, "optimizer_update_many")) {
      for (const Value& input : update->inputs) {
        EXPECT_NE(input, Value(graph.get(), node->index, 0));
      }
    }
  }
  EXPECT_EQ(frozen, 1);
}

TEST_P(WorkingCopiesOf, EvaluationsStayAsTheyAre) {
  const auto plain = network({.trains = false});
  const auto [graph, kept] = copies({.trains = false});
  EXPECT_EQ(graph->text(), plain->text());
  EXPECT_EQ(kept, kept_nodes(*graph));
}

TEST_P(WorkingCopiesOf, NothingElseLiesWhereTheyLie) {
  const auto [graph, kept] = copies({});
  const std::vector<bool> lasting = lasting_nodes(*graph, kept);
  EXPECT_EQ(lasting, kept);
  const Plan plan = plan_memory(
      *graph,
      {.scratch = [](const Node&) { return std::size_t{1000}; },
       .overwrites = [](const Node& node) { return node.inputs.empty() ? -1 : 0; },
       .keep = [&](const Node& node) { return lasting[static_cast<std::size_t>(node.index)]; }});
  const auto meet = [](const Block& a, const Block& b) {
    return a.home == Block::Home::arena && b.home == Block::Home::arena &&
           a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  };
  int checked = 0;
  for (std::size_t n = 0; n < lasting.size(); ++n) {
    if (!lasting[n]) continue;
    const Block& block = plan.values[n][0];
    EXPECT_EQ(block.home, Block::Home::arena);
    for (std::size_t other = 0; other < lasting.size(); ++other) {
      EXPECT_FALSE(meet(block, plan.scratch[other])) << n << " and the scratch of " << other;
      for (const Block& value : plan.values[other]) {
        if (other == n) continue;
        EXPECT_FALSE(meet(block, value)) << n << " and " << other;
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 0);
}

// What something else than an optimizer writes cannot be kept.
TEST_P(WorkingCopiesOf, WeightsThatOthersWriteAreCastWhereTheyAreRead) {
  Graph graph;
  const Value x = graph.input("x", {GetParam(), {2, 3, 4, 4}});
  const Value weight = graph.state({.name = "weight", .type = {DType::f32, {3, 3, 1, 1}}});
  static const OpDef overwrite{.name = "overwrite",
                               .infer = [](const Node&) { return std::vector<TensorType>(); },
                               .writes = [](const Node&) { return std::vector<int>{0}; }};
  graph.fetch("before", ops::conv2d(x, weight, {}));
  graph.emit(overwrite, {weight});
  graph.fetch("after", ops::conv2d(x, weight, {}));
  const auto [made, kept] = add_working_copies(graph);
  EXPECT_THAT(kept, testing::Not(testing::Contains(true)));
  EXPECT_EQ(nodes_of(*made, "cast").size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Types, WorkingCopiesOf, testing::Values(DType::bf16, DType::f16),
                         [](const auto& of) { return std::string(name_of(of.param)); });

// ---- whole steps

float number(std::uint32_t i) {
  i = (i ^ (i >> 15)) * 0x2c1b3c6du;
  i = (i ^ (i >> 12)) * 0x297a2d39u;
  return static_cast<float>((i ^ (i >> 15)) >> 8) / 8388608.0f - 1.0f;
}

struct Steps {
  Floats loss, ok;
  std::map<std::string, Floats> states;
};

struct HowToRun {
  std::string precision = "fp32";
  bool capture = true;
  bool refreshes = false;  // before every step, as if the states had been written
  int steps = 6;
};

Steps run(const Graph& graph, const HowToRun& how) {
  CudaDevice device;
  device.precision = how.precision;
  device.capture = how.capture;
  device.open(0, 1);
  const auto store = device.make_store();
  const auto program = device.compile(device.prepare(graph, store.get(), nullptr), *store, nullptr);
  std::uint32_t seed = 1;
  for (const StateStore::Entry& entry : store->entries()) {
    const Initializer& first = entry.spec.initializer;
    Floats values(static_cast<std::size_t>(entry.spec.type.shape.elements()));
    for (float& value : values) {
      value = static_cast<float>(first.a + 1.7 * first.b * double(number(++seed)));
    }
    store->write(entry.spec.name, values.data());
  }
  Steps made;
  Floats image(2 * 3 * 8 * 8);
  for (int step = 0; step < how.steps; ++step) {
    for (std::size_t i = 0; i < image.size(); ++i) {
      image[i] = number(static_cast<std::uint32_t>(100000 + (step % 2) * 1000 + int(i)));
    }
    if (how.refreshes) program->refresh();
    program->write("image", image.data());
    program->run();
    for (auto [name, values] : {std::pair{"loss", &made.loss}, std::pair{"ok", &made.ok}}) {
      program->read(name, &values->emplace_back());
    }
  }
  for (const StateStore::Entry& entry : store->entries()) {
    Floats& values = made.states[entry.spec.name];
    values.resize(static_cast<std::size_t>(entry.spec.type.shape.elements()));
    store->read(entry.spec.name, values.data());
  }
  return made;
}

void expect_close(const Steps& got, const Steps& expected, float tolerance) {
  ASSERT_EQ(got.loss.size(), expected.loss.size());
  for (std::size_t i = 0; i < got.loss.size(); ++i) {
    EXPECT_NEAR(got.loss[i], expected.loss[i], tolerance * expected.loss[i]) << "step " << i + 1;
  }
}

class CudaPrecision : public testing::TestWithParam<std::string> {
 protected:
  static constexpr double tolerance = 0.03;
};

// Copies that the update wrote are what a cast of the weights is.
TEST_P(CudaPrecision, CopiesAreTheWeightsRounded) {
  const auto graph = network({.first_is_frozen = false, .loss_scale = 1024});
  const Steps kept = run(*graph, {.precision = GetParam()});
  const Steps made_anew = run(*graph, {.precision = GetParam(), .refreshes = true});
  EXPECT_EQ(kept.loss, made_anew.loss);
  EXPECT_EQ(kept.states, made_anew.states);
  const Steps uncaptured = run(*graph, {.precision = GetParam(), .capture = false});
  EXPECT_EQ(kept.states, uncaptured.states);
}

TEST_P(CudaPrecision, StepsFollowF32) {
  const auto graph = network({.loss_scale = 1024});
  const Steps f32 = run(*graph, {});
  EXPECT_NE(f32.loss.front(), f32.loss.back());
  const Steps narrow = run(*graph, {.precision = GetParam()});
  EXPECT_NE(narrow.loss, f32.loss);
  expect_close(narrow, f32, tolerance);
}

INSTANTIATE_TEST_SUITE_P(Types, CudaPrecision, testing::Values("bf16", "fp16"),
                         [](const auto& of) { return of.param; });

// Gradients of activations times the scale are more than f16 holds, and infinite there.
TEST(CudaFp16, OverflowSkipsTheStepAndHalvesTheScale) {
  const auto graph = network({.loss_scale = 0x1p26});
  const Steps none = run(*graph, {.precision = "fp16", .steps = 0});
  const Steps first = run(*graph, {.precision = "fp16", .steps = 1});
  EXPECT_EQ(first.ok, Floats{0});
  for (const auto& [name, values] : none.states) {
    if (name == "loss_scale") {
      EXPECT_EQ(first.states.at(name), Floats{0x1p25f});
    } else {
      EXPECT_EQ(first.states.at(name), values) << name;
    }
  }
  const Steps many = run(*graph, {.precision = "fp16", .steps = 16});
  EXPECT_EQ(many.ok.back(), 1);
  EXPECT_LT(many.states.at("loss_scale")[0], 0x1p26f);
  EXPECT_NE(many.states.at("second"), none.states.at("second"));
  for (const float loss : many.loss) EXPECT_TRUE(std::isfinite(loss));
}

}  // namespace
}  // namespace ftrain::cuda
