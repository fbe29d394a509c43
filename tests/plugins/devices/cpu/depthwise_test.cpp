// Narrow 3x3 convolutions on every target that the machine has, against the plain loops.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/compile/passes.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/rewrite/depthwise.h"
#include "plugins/devices/cpu/rewrite/depthwise_ops.h"
#include "plugins/devices/cpu/rewrite/layouts.h"
#include "plugins/devices/cpu/simd_cases.h"

namespace ftrain::cpu {
namespace {

struct Problem {
  Shape x;
  std::int64_t width, stride;  // channels of a group
};

// Every edge that an image can have, and rows shorter and longer than what is summed together.
const Problem problems[] = {
    {{2, 32, 9, 13}, 1, 1},  {{3, 32, 1, 1}, 1, 1},  {{1, 32, 2, 7}, 1, 1},  {{2, 16, 20, 2}, 1, 1},
    {{1, 16, 5, 140}, 1, 1}, {{2, 32, 9, 13}, 1, 2}, {{2, 32, 8, 14}, 1, 2}, {{3, 16, 1, 1}, 1, 2},
    {{2, 16, 2, 9}, 1, 2},   {{1, 16, 7, 6}, 1, 2},  {{2, 32, 9, 13}, 2, 1}, {{3, 32, 1, 1}, 2, 1},
    {{1, 32, 2, 7}, 2, 1},   {{2, 32, 20, 2}, 2, 1},
};

struct Results {
  std::vector<float> y, dx, dweight;
  bool operator==(const Results&) const = default;
};

// What is stored in 16 bits, as the test of f32 is to see it.
std::vector<float> operand(Value value, std::uint32_t seed, bool round) {
  auto values = random_values(static_cast<std::size_t>(value.shape().elements()), seed);
  if (round && value.shape().rank() == 4 && value.shape()[2] != 3) {
    for (float& v : values) v = to_f32(to_bf16(v));
  }
  return values;
}

class DepthwiseTest : public SimdTest {
 protected:
  // What a weight's values are put through before they are set.
  std::function<std::vector<float>(std::vector<float>)> weights = [](std::vector<float> values) {
    return values;
  };

  Results run(const Problem& p, const TensorType& type, const std::string& weight_layout,
              const char* kernel, bool round = false) {
    const ops::Conv2d options{.stride = p.stride, .padding = 1, .groups = p.x[1] / p.width};
    const Shape weight_shape{p.x[1], p.width, 3, 3};
    Graph graph;
    const Value x = graph.input("x", type);
    const Value weight = graph.input("weight", {DType::f32, weight_shape, weight_layout});
    const Value y = ops::conv2d(x, weight, options);
    TensorType out = y.type();
    out.layout = type.layout;
    const Value dy = graph.input("dy", out);
    const Value dx = ops::conv2d_input_grad(dy, weight, p.x, options);
    const Value dweight = ops::conv2d_weight_grad(dy, x, weight_shape, options);
    for (const Value& v : {y, dx}) graph.node(v.node_index()).outputs[0].layout = type.layout;
    graph.node(dweight.node_index()).outputs[0].layout = weight_layout;
    GraphRunner runner(graph, kernels(), environment, kernel);
    runner.set(x, operand(x, 1, round));
    runner.set(dy, operand(dy, 2, round));
    runner.set(weight, weights(operand(weight, 3, false)));
    runner.run();
    return {runner.get(y), runner.get(dx), runner.get(dweight)};
  }
};

std::string text_of(const Problem& p, std::int64_t block) {
  return p.x.text() + " in groups of " + std::to_string(p.width) + " stride " +
         std::to_string(p.stride) + " blocks of " + std::to_string(block);
}

TEST_P(DepthwiseTest, EqualsPlainLoopsWhateverTheThreads) {
  for (const Problem& p : problems) {
    const Results expected = run(p, {DType::f32, p.x}, "", "plain");
    for (const std::int64_t block : {8, 16}) {
      SCOPED_TRACE(text_of(p, block));
      const TensorType type{DType::f32, p.x, blocked_layout(block)};
      environment.threads = 2;
      const Results got = run(p, type, "", "depthwise");
      EXPECT_LT(relative_difference(got.y, expected.y), 2e-6);
      EXPECT_LT(relative_difference(got.dx, expected.dx), 2e-6);
      EXPECT_LT(relative_difference(got.dweight, expected.dweight), 2e-6);
      for (const int threads : {1, 3}) {
        environment.threads = threads;
        EXPECT_EQ(run(p, type, "", "depthwise"), got);
      }
    }
  }
}

TEST_P(DepthwiseTest, Bf16IsTheRoundedResult) {
  for (const Problem& p : problems) {
    const Results expected = run(p, {DType::f32, p.x}, "", "plain", true);
    for (const std::int64_t block : {8, 16}) {
      SCOPED_TRACE(text_of(p, block));
      const Results got = run(p, {DType::bf16, p.x, blocked_layout(block)}, "", "depthwise");
      // An element of 4 root mean squares rounds by a half of 2^-7 of it.
      EXPECT_LT(relative_difference(got.y, expected.y), 2e-2);
      EXPECT_LT(relative_difference(got.dx, expected.dx), 2e-2);
      EXPECT_LT(relative_difference(got.dweight, expected.dweight), 2e-6);
    }
  }
}

TEST_P(DepthwiseTest, TakesWeightsInBlocks) {
  const Problem p{{2, 32, 9, 13}, 1, 1};
  const Results expected = run(p, {DType::f32, p.x}, "", "plain");
  for (const std::int64_t block : {8, 16}) {
    // The runner's weights are in row-major order: put them, and the gradient, in order by hand.
    const std::string layout = "Abcd" + std::to_string(block) + "a";
    const auto arranged = [&](const std::vector<float>& from, bool back) {
      std::vector<float> to(from.size());
      for (std::int64_t c = 0; c < 32; ++c) {
        for (std::int64_t tap = 0; tap < 9; ++tap) {
          const auto plain = static_cast<std::size_t>(c * 9 + tap);
          const auto blocked = static_cast<std::size_t>((c / block * 9 + tap) * block + c % block);
          back ? to[plain] = from[blocked] : to[blocked] = from[plain];
        }
      }
      return to;
    };
    weights = [&](std::vector<float> values) { return arranged(values, false); };
    const TensorType type{DType::f32, p.x, blocked_layout(block)};
    const Results got = run(p, type, layout, "depthwise");
    EXPECT_LT(relative_difference(got.y, expected.y), 2e-6);
    EXPECT_LT(relative_difference(got.dx, expected.dx), 2e-6);
    EXPECT_LT(relative_difference(arranged(got.dweight, true), expected.dweight), 2e-6);
  }
}

// The mean difference, in units of the reference's mean size: where a sign decides, few elements
// may differ by much.
double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double differences = 0, sizes = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    differences += std::abs(double(a[i]) - double(b[i]));
    sizes += std::abs(double(b[i]));
  }
  return differences / sizes;
}

// The block's ops, or with `plain` their decompositions: all outputs, forward then backward.
struct BlockRun {
  const Problem& p;
  TensorType type;
  bool plain, in_place = false, round = false;
};
std::vector<std::vector<float>> run_block(const BlockRun& run,
                                          const KernelEnvironment& environment) {
  const Problem& p = run.p;
  const std::int64_t channels = p.x[1];
  const ops::Conv2d options{.stride = p.stride, .padding = 1, .groups = channels / p.width};
  Graph graph;
  std::vector<Value> inputs;
  const auto input = [&](const TensorType& type) {
    inputs.push_back(graph.input("input" + std::to_string(inputs.size()), type));
    return inputs.back();
  };
  const auto norm = [&](double eps) {
    const Value gamma = input({DType::f32, Shape{channels}});
    const Value beta = input({DType::f32, Shape{channels}});
    return NormAndSlope{{gamma, beta}, input({DType::f32, Shape{channels}}), eps};
  };
  const Value x = input(run.type);
  const NormAndSlope first = norm(1e-5), second = norm(1e-3);
  const Value weight = input({DType::f32, Shape{channels, p.width, 3, 3}});
  DepthwiseBlock block = depthwise_block(x, first, weight, second, options);
  std::vector<Value> results;
  const auto collect = [&](Value made, std::int32_t count) {
    const Node& node = made.node();
    if (run.plain) {
      const auto decompositions = node.op->decomposition(graph, node);
      results.insert(results.end(), decompositions.begin(), decompositions.end());
    } else {
      for (std::int32_t i = 0; i < count; ++i) results.push_back(made.sibling(i));
    }
  };
  collect(block.y, 6);
  if (run.plain)
    block = {results[0], {results[1], results[2]}, results[3], {results[4], results[5]}};
  const Value dy = input(block.y.type());
  collect(depthwise_block_grad(dy, x, first, weight, second, block, options).x, 8);
  GraphRunner runner(graph, kernels(), environment, run.plain ? "plain" : "slabs");
  runner.skip = [&](const Node& node) { return run.plain && node.op->decomposition != nullptr; };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    runner.set(inputs[i], operand(inputs[i], static_cast<std::uint32_t>(i + 1), run.round));
  }
  runner.run(run.in_place);
  std::vector<std::vector<float>> values;
  for (const Value& result : results) values.push_back(runner.get(result));
  return values;
}

TEST_P(DepthwiseTest, BlockEqualsItsTwinWhateverTheThreads) {
  for (const Problem& p : problems) {
    // A variance of next to nothing makes any difference large.
    if (p.x[0] * p.x[2] * p.x[3] < 16) continue;
    const auto expected = run_block({p, {DType::f32, p.x}, true}, environment);
    for (const std::int64_t block : {8, 16}) {
      SCOPED_TRACE(text_of(p, block));
      const TensorType type{DType::f32, p.x, blocked_layout(block)};
      environment.threads = 2;
      const auto got = run_block({p, type, false}, environment);
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_LT(relative_difference(got[i], expected[i]), 1e-5) << "output " << i;
      }
      for (const int threads : {1, 3}) {
        environment.threads = threads;
        EXPECT_EQ(run_block({p, type, false, threads == 3}, environment), got);
      }
    }
  }
}

TEST_P(DepthwiseTest, BlockInBf16IsNearItsTwin) {
  for (const Problem& p : problems) {
    if (p.x[0] * p.x[2] * p.x[3] < 100) continue;
    const BlockRun exact{p, {DType::f32, p.x}, true, false, true};
    const auto expected = run_block(exact, environment);
    for (const std::int64_t block : {8, 16}) {
      SCOPED_TRACE(text_of(p, block));
      const auto got =
          run_block({p, {DType::bf16, p.x, blocked_layout(block)}, false}, environment);
      for (std::size_t i = 0; i < got.size(); ++i) {
        // Sums of a few hundred products that nearly cancel keep what rounding there was in each.
        const bool sums = i > 6;
        EXPECT_LT(mean_difference(got[i], expected[i]), sums ? 0.1 : 2e-2) << "output " << i;
      }
    }
  }
}

// Such a convolution between two 1x1 ones, with all that is around it in a network.
struct Network {
  Graph graph;
  Value inner, outer;  // what the narrow convolution reads, and what the second PReLU gives

  explicit Network(std::int64_t stride, std::int64_t groups, std::int64_t of_moments = 1)
      : of_moments_(of_moments) {
    const Value x = graph.input("x", {DType::f32, Shape{4, 32, 9, 8}});
    const Value z = ops::conv2d(x, parameter("expand", Shape{32, 32, 1, 1}), {});
    inner = norm_prelu("first", z);
    const Value narrow = ops::conv2d(inner, parameter("narrow", Shape{32, 32 / groups, 3, 3}),
                                     {.stride = stride, .padding = 1, .groups = groups});
    outer = norm_prelu("second", narrow);
    const Value y = ops::conv2d(outer, parameter("project", Shape{32, 32, 1, 1}), {});
    const Seed seed{y, graph.input("dy", y.type())};
    const auto found = gradients(graph, std::span(&seed, 1), parameters_);
    for (std::size_t i = 0; i < found.size(); ++i) {
      graph.fetch("gradient " + std::to_string(i), found[i]);
    }
    graph.fetch("y", y);
  }

 private:
  Value parameter(const std::string& name, const Shape& shape) {
    parameters_.push_back(graph.state({.name = name, .type = {DType::f32, shape}}));
    return parameters_.back();
  }
  Value norm_prelu(const std::string& name, Value x) {
    const ops::Moments moments = ops::batch_moments(x, of_moments_);
    const Value gamma = parameter(name + ".gamma", Shape{32});
    const Value normed =
        ops::batch_norm(x, moments, gamma, parameter(name + ".beta", Shape{32}), {1e-5, 1});
    return ops::prelu(normed, parameter(name + ".slope", Shape{32}));
  }

  std::int64_t of_moments_;
  std::vector<Value> parameters_;
};

const KernelList& all_kernels() {
  static const KernelList list = [] {
    KernelList made = kernels();
    add_onednn_kernels(made);
    return made;
  }();
  return list;
}

std::vector<std::vector<float>> fetched(const Graph& graph, const KernelEnvironment& environment) {
  GraphRunner runner(graph, all_kernels(), environment);
  std::uint32_t seed = 1;
  for (const Graph::Named& input : graph.inputs()) {
    runner.set(input.value, operand(input.value, seed++, false));
  }
  // In the order in which they lie, which is the same with and without fusion.
  for (const Graph::State& state : graph.states()) {
    const auto values = operand(state.value, seed++, false);
    runner.set_bytes(state.value, values.data());
  }
  runner.run();
  std::vector<std::vector<float>> values;
  for (const Graph::Named& fetch : graph.fetches()) values.push_back(runner.get(fetch.value));
  return values;
}

int count(const Graph& graph, std::string_view op) {
  int found = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) found += graph.node(i).op->name == op;
  return found;
}

TEST_P(DepthwiseTest, ANetworkIsFusedAndComputesTheSame) {
  for (const auto& [stride, groups] : {std::pair{1, 32}, std::pair{2, 32}, std::pair{1, 16}}) {
    SCOPED_TRACE("stride " + std::to_string(stride) + " groups " + std::to_string(groups));
    const Network network(stride, groups);
    const auto plain = remove_dead(
        *assign_layouts(*merge_common(network.graph), all_kernels(), environment, nullptr));
    const auto fused = remove_dead(*fuse_depthwise(*plain));
    EXPECT_EQ(count(*fused, "depthwise_block"), 1);
    EXPECT_EQ(count(*fused, "depthwise_block_grad"), 1);
    for (const char* op : {"batch_norm", "prelu", "prelu_grad", "batch_norm_sums"}) {
      EXPECT_EQ(count(*fused, op), 0) << op;
    }
    const auto expected = fetched(*plain, environment), got = fetched(*fused, environment);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT(relative_difference(got[i], expected[i]), 2e-5) << "fetch " << i;
    }
  }
}

TEST_P(DepthwiseTest, WhatIsSeenFromOutsideIsNotFused) {
  const auto blocks = [&](const Graph& graph) {
    const auto plain =
        remove_dead(*assign_layouts(*merge_common(graph), all_kernels(), environment, nullptr));
    return count(*fuse_depthwise(*plain), "depthwise_block");
  };
  Network inside(1, 32);
  inside.graph.fetch("inner", inside.inner);
  EXPECT_EQ(blocks(inside.graph), 0);
  Network result(1, 32);
  result.graph.fetch("outer", result.outer);
  EXPECT_EQ(blocks(result.graph), 1);
  EXPECT_EQ(blocks(Network(1, 32, 2).graph), 0);  // statistics of two groups
  EXPECT_EQ(blocks(Network(1, 8).graph), 0);      // groups of four channels
}

INSTANTIATE_TEST_SUITE_P(Targets, DepthwiseTest,
                         testing::Values("scalar", "plain", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ftrain::cpu
