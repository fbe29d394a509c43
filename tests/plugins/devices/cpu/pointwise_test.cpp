// Element-wise Highway kernels in bf16, against plain loops in f32 on the same (rounded) operands;
// the ops that go from one element type to another; and the updates of many tensors at once.
#include <gtest/gtest.h>

#include <cmath>

#include "core/compile/merge_updates.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/case_payloads.h"
#include "plugins/devices/cpu/simd_cases.h"

namespace ftrain::cpu {
namespace {

class PointwiseTest : public SimdTest {};

const Case cases[] = {
    {"add", [](Operands& o) { ops::add(o.like_x("x"), o.like_x("y")); }},
    {"mul", [](Operands& o) { ops::mul(o.like_x("x"), o.like_x("y")); }},
    {"scale", [](Operands& o) { ops::scale(o.like_x("x"), 0.37); }},
    {"scale_by", [](Operands& o) { ops::scale_by(o.like_x("x"), o.scalar("s")); }},
    {"relu", [](Operands& o) { ops::relu(o.like_x("x")); }},
    {"relu_grad", [](Operands& o) { ops::relu_grad(o.like_x("dy"), o.like_x("x")); }},
    {"prelu", [](Operands& o) { ops::prelu(o.like_x("x"), o.channels("slope")); }},
    {"prelu_grad",
     [](Operands& o) { ops::prelu_grad(o.like_x("dy"), o.like_x("x"), o.channels("slope")); }},
    {"global_average_pool", [](Operands& o) { ops::global_average_pool(o.like_x("x")); }, true},
};

// bf16 has 8 digits: half a unit of the last is 2^-9 of a number.
void expect_rounded(const std::vector<float>& got, const std::vector<float>& exact) {
  ASSERT_EQ(got.size(), exact.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], exact[i], std::abs(exact[i]) * 0x1p-8 + 1e-6) << "element " << i;
  }
}

TEST_P(PointwiseTest, Bf16IsTheRoundedResultWhateverTheThreads) {
  for (const Case& c : cases) {
    for (const Layout& layout : layouts) {
      if (c.images_only && layout.shape.rank() != 4) continue;
      SCOPED_TRACE(std::string(c.name) + " " + layout.shape.text() + ":" + layout.layout);
      const TensorType plain{DType::f32, layout.shape, ""};
      const TensorType type{DType::bf16, layout.shape, layout.layout};
      const auto expected = outputs_of(c.emit, plain, 1, "plain", environment, {.round = true});
      environment.threads = 2;
      const auto got = outputs_of(c.emit, type, 1, "simd", environment);
      ASSERT_EQ(got.size(), expected.size());
      expect_rounded(got[0], expected[0]);
      for (std::size_t i = 1; i < got.size(); ++i) {
        EXPECT_LT(relative_difference(got[i], expected[i]), 2e-6) << "output " << i;
      }
      environment.threads = 1;
      const bool pool = std::string(c.name) == "global_average_pool";
      EXPECT_EQ(outputs_of(c.emit, type, 1, "simd", environment, {.in_place = !pool}), got);
    }
  }
}

TEST_P(PointwiseTest, CastsThereAndBack) {
  for (const std::int64_t count : {1, 15, 16, 33, 40000}) {
    Graph graph;
    const Value x = graph.input("x", {DType::f32, Shape{count}});
    const Value narrow = ops::cast(x, DType::bf16), wide = ops::cast(narrow, DType::f32);
    GraphRunner runner(graph, kernels(), environment, "simd");
    auto values = random_values(static_cast<std::size_t>(count), 5);
    values[0] = std::nanf("");
    runner.set(x, values);
    runner.run();
    const auto got = runner.get(wide);
    EXPECT_TRUE(std::isnan(got[0]));
    for (std::size_t i = 1; i < got.size(); ++i) {
      ASSERT_EQ(got[i], to_f32(to_bf16(values[i]))) << "element " << i << " of " << count;
    }
  }
}

TEST_P(PointwiseTest, ImagesAreNormalisedInto16Bits) {
  const Shape shape{3, 5, 7, 3};
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 37);
  const std::int64_t step = 4;
  const auto normalised = [&](const char* to, const char* kernel) {
    Graph graph;
    const Value image = graph.input("image", {DType::u8, shape});
    const Value at = graph.input("step", {DType::i64, Shape{}});
    const Value like = ops::image_normalize(
        image, at, {.mean = 127.5, .scale = 1 / 127.5, .flip = 0.5, .seed = 3});
    Attributes attributes = like.node().attributes;
    attributes.set("to", to);
    const Value y = graph.emit(*like.node().op, {image, at}, attributes);
    GraphRunner runner(graph, kernels(), environment, kernel);
    runner.skip = [&](const Node& node) { return node.index == like.node_index(); };
    runner.set_bytes(image, pixels.data());
    runner.set_bytes(at, &step);
    runner.run();
    return runner.get(y);
  };
  const auto exact = normalised("f32", "plain");
  EXPECT_EQ(normalised("f32", "threads"), exact);
  expect_rounded(normalised("bf16", "threads"), exact);
}

// Two kinds of updates of tensors of all sizes, and something else among them.
struct Updates {
  Graph graph;
  std::vector<Value> states, inputs;

  explicit Updates(bool clipped) {
    const auto update = std::make_shared<const MomentumUpdate>();
    const Value rate = input("rate", {}), ok = input("ok", {});
    const Value coefficient = clipped ? input("coefficient", {}) : Value();
    std::size_t i = 0;
    for (const std::int64_t size : {1, 100, 40000, 7, 16384, 16385, 3}) {
      const std::string name = "p" + std::to_string(i);
      const Value parameter = state(name, {size});
      const double decay = i % 2 == 0 ? 0.1 : 0;
      ops::optimizer_update(parameter, {state(name + ".momentum", {size})},
                            input(name + ".gradient", {size}), rate, coefficient, ok, {}, update, 1,
                            decay);
      if (++i == 5) graph.fetch("scaled", ops::scale(parameter, 2));
    }
  }

 private:
  Value input(const std::string& name, const Shape& shape) {
    inputs.push_back(graph.input(name, {DType::f32, shape}));
    return inputs.back();
  }
  Value state(const std::string& name, const Shape& shape) {
    states.push_back(graph.state({.name = name, .type = {DType::f32, shape}}));
    return states.back();
  }
};

// What the states hold after the graph has run.
std::vector<std::vector<float>> updated(const Graph& graph, const KernelEnvironment& environment,
                                        bool ok, std::map<std::string, int>& ran) {
  GraphRunner runner(graph, kernels(), environment);
  std::uint32_t seed = 1;
  const auto random = [&](Value value) {
    runner.set(value, random_values(static_cast<std::size_t>(value.shape().elements()), seed++));
  };
  for (const Graph::Named& input : graph.inputs()) {
    if (input.name == "ok") {
      runner.set(input.value, {ok ? 1.0f : 0.0f});
    } else {
      random(input.value);
    }
  }
  for (const Graph::State& state : graph.states()) random(state.value);
  runner.run();
  ran = runner.ran;
  std::vector<std::vector<float>> values;
  for (const Graph::State& state : graph.states()) values.push_back(runner.get(state.value));
  return values;
}

TEST_P(PointwiseTest, MergedUpdatesAreTheSingleOnesToTheBit) {
  for (const bool clipped : {false, true}) {
    for (const bool ok : {true, false}) {
      const Updates single(clipped);
      const auto merged = merge_updates(single.graph);
      for (const int threads : {1, 2}) {
        environment.threads = threads;
        std::map<std::string, int> ran;
        const auto expected = updated(single.graph, environment, ok, ran);
        EXPECT_EQ(ran["optimizer_update/simd"], 7);
        EXPECT_EQ(updated(*merged, environment, ok, ran), expected);
        // Of two kinds before the scaling, which reads what was written, and after it.
        EXPECT_EQ(ran["optimizer_update_many/simd"], 2);
        EXPECT_EQ(ran["optimizer_update/simd"], 2);
      }
    }
  }
}

// As the decomposition says: the merged graph with its node taken apart again.
TEST_P(PointwiseTest, MergedUpdatesHaveTheSingleOnesAsTwin) {
  Updates single(true);
  const auto merged = merge_updates(single.graph);
  const std::int32_t size = merged->size();
  int many = 0;
  for (std::int32_t i = 0; i < size; ++i) {
    const Node& node = merged->node(i);
    if (node.op->name != "optimizer_update_many") continue;
    const std::int32_t before = merged->size();
    node.op->decomposition(*merged, node);
    ASSERT_EQ(merged->size() - before, node.attributes.integer("tensors"));
    for (std::int32_t t = before; t < merged->size(); ++t) {
      EXPECT_EQ(merged->node(t).op->name, "optimizer_update");
      EXPECT_EQ(merged->node(t).attributes.number("decay"), node.attributes.number("decay"));
    }
    ++many;
  }
  EXPECT_EQ(many, 2);
}

INSTANTIATE_TEST_SUITE_P(Targets, PointwiseTest,
                         testing::Values("scalar", "plain", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ftrain::cpu
