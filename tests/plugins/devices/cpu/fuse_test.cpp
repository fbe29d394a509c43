// Every pattern of the fusion pass: it fires where it may, computes the same, and keeps its hands
// off what somebody else uses.
#include "core/compile/fuse.h"

#include <gtest/gtest.h>

#include "core/compile/passes.h"
#include "core/ops/norm_chain.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/graph_runner.h"

namespace ftrain::cpu {
namespace {

const Shape image{4, 16, 6, 5};
const Shape vector{16};

const KernelList& kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_reference_kernels(made);
    add_simd_kernels(made);
    return made;
  }();
  return list;
}

// A residual block of an IResNet in channel blocks, with a product by a fixed tensor where the
// network has its convolutions: bn - mul - bn - prelu - mul - bn - plus x; or several in a row.
struct Residual {
  Graph graph;
  Value step, x, y, z1;
  std::vector<Value> parameters;

  explicit Residual(std::int64_t groups, std::int64_t ranks = 1, int blocks = 1)
      : groups_(groups), ranks_(ranks) {
    x = graph.input("x", activation());
    y = step = ops::mul(x, weight("w0"));
    for (int block = 0; block < blocks; ++block) {
      const std::string name = block == 0 ? "" : "block" + std::to_string(block) + ".";
      const Value from = y;
      const Value a = ops::mul(norm(name + "bn1", from), weight(name + "w1"));
      z1 = norm(name + "bn2", a);
      const Value slope = parameter(name + "prelu", 0.25f);
      const Value b = ops::mul(ops::prelu(z1, slope), weight(name + "w2"));
      y = ops::add(norm(name + "bn3", b), from);
    }
  }

  void backward() {
    const Value dy = graph.input("dy", activation());
    std::vector<Value> targets = parameters;
    targets.push_back(x);
    const Seed seed{y, dy};
    const auto found = gradients(graph, std::span(&seed, 1), targets);
    for (std::size_t i = 0; i < found.size(); ++i) {
      graph.fetch("gradient " + std::to_string(i), found[i]);
    }
  }

  static TensorType activation() { return {DType::f32, image, "aBcd16b"}; }

 private:
  Value parameter(const std::string& name, float value) {
    parameters.push_back(graph.state({.name = name,
                                      .type = {DType::f32, vector},
                                      .initializer = {.a = static_cast<double>(value)}}));
    return parameters.back();
  }
  Value weight(const std::string& name) { return graph.input(name, activation()); }
  Value norm(const std::string& name, Value from) {
    const ops::Moments moments = ops::batch_moments(from, groups_);
    return ops::batch_norm(from, moments, parameter(name + ".gamma", 1),
                           parameter(name + ".beta", 0), {1e-5, ranks_});
  }

  std::int64_t groups_, ranks_;
};

// The same evaluated with fixed statistics.
struct Evaluation {
  Graph graph;

  Evaluation() {
    const Value x = graph.input("x", Residual::activation());
    const Value z = norm("bn1", x);
    const Value p = ops::prelu(z, graph.input("slope", {DType::f32, vector}));
    graph.fetch("y", ops::add(x, norm("bn2", p)));
  }

 private:
  Value norm(const std::string& name, Value from) {
    const auto channels = [&](const char* what) {
      return graph.input(name + what, {DType::f32, vector});
    };
    const Value mean = channels(".mean"), variance = channels(".variance");
    return ops::batch_norm_fixed(from, mean, variance, channels(".gamma"), channels(".beta"), 1e-5);
  }
};

int count(const Graph& graph, std::string_view op) {
  int found = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) found += chain_title(graph.node(i)) == op;
  return found;
}

// The graph's fetches, its leaves filled with numbers that depend on their names alone.
std::map<std::string, std::vector<float>> run(const Graph& graph) {
  GraphRunner runner(graph, kernels(), {.threads = 2, .isa = {}});
  const auto fill = [&](const std::string& name, Value value) {
    std::uint32_t seed = 1;
    for (const char c : name) seed = seed * 31 + static_cast<std::uint32_t>(c);
    auto values = random_values(static_cast<std::size_t>(value.shape().elements()), seed);
    if (name.ends_with("variance")) {
      for (float& v : values) v = 0.5f + v * v;
    }
    runner.set(value, values);
  };
  for (const Graph::Named& input : graph.inputs()) fill(input.name, input.value);
  for (const Graph::State& state : graph.states()) fill(state.spec.name, state.value);
  runner.run();
  std::map<std::string, std::vector<float>> results;
  for (const Graph::Named& fetch : graph.fetches()) {
    results[fetch.name] = runner.get(fetch.value);
  }
  return results;
}

void expect_equal_results(const Graph& graph, const Graph& fused) {
  const auto expected = run(graph), got = run(fused);
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [name, values] : expected) {
    EXPECT_LT(relative_difference(got.at(name), values), 5e-6) << name;
  }
}

std::unique_ptr<Graph> fused(const Graph& graph) {
  auto result = fuse(graph, takes_fused_norms);
  EXPECT_EQ(remove_dead(*result)->size(), result->size()) << "something was left behind";
  return result;
}

// Moments that ranks share stand apart from the norms that they are used in.
TEST(Fuse, NormsOfSeveralRanksFuseWithTheirNeighbours) {
  Residual block(1, 2);
  block.backward();
  block.graph.fetch("y", block.y);
  const auto result = fused(*remove_dead(block.graph));
  EXPECT_EQ(count(*result, "norm_chain_grad prelu sums"), 1);
  EXPECT_EQ(count(*result, "norm_chain_grad prelu input"), 1);
  EXPECT_EQ(count(*result, "norm_chain_grad input add"), 1);
  EXPECT_EQ(count(*result, "prelu") + count(*result, "prelu_grad") + count(*result, "add"), 0);
  EXPECT_EQ(count(*result, "norm_chain_grad sums input") +
                count(*result, "norm_chain_grad sums input add"),
            0);
}

TEST(Fuse, TrainingStepFiresEveryPatternAndComputesTheSame) {
  for (const std::int64_t groups : {1, 2}) {
    Residual block(groups);
    block.backward();
    block.graph.fetch("y", block.y);
    const auto graph = remove_dead(block.graph);
    const auto result = fused(*graph);
    EXPECT_EQ(count(*result, "norm_chain statistics norm"), 1);
    EXPECT_EQ(count(*result, "norm_chain statistics norm prelu"), 1);
    EXPECT_EQ(count(*result, "norm_chain statistics norm add"), 1);
    EXPECT_EQ(count(*result, "norm_chain_grad sums input"), 1);
    EXPECT_EQ(count(*result, "norm_chain_grad prelu sums input"), 1);
    EXPECT_EQ(count(*result, "norm_chain_grad sums input add"), 1);
    for (const char* op : {"batch_moments", "batch_norm", "prelu", "prelu_grad", "add",
                           "batch_norm_sums", "batch_norm_input_grad"}) {
      EXPECT_EQ(count(*result, op), 0) << op;
    }
    expect_equal_results(*graph, *result);
  }
}

TEST(Fuse, NormsThatMeetAtTheBorderOfBlocksFuse) {
  for (const std::int64_t groups : {1, 2}) {
    Residual stack(groups, 1, 3);
    stack.backward();
    stack.graph.fetch("y", stack.y);
    const auto graph = remove_dead(stack.graph);
    const auto result = fused(*graph);
    EXPECT_EQ(count(*result, "norm_chain statistics norm add statistics norm"), 2);
    EXPECT_EQ(count(*result, "norm_chain_grad norm add sums input"), 2);
    EXPECT_EQ(count(*result, "norm_chain statistics norm prelu"), 3);
    EXPECT_EQ(count(*result, "norm_chain statistics norm add"), 1);
    EXPECT_EQ(count(*result, "norm_chain statistics norm"), 1);
    expect_equal_results(*graph, *result);
  }
}

// prelu(bn(x)) into the next norm, and the sum of two gradients into a norm.
TEST(Fuse, StemAndSumOfGradientsFuse) {
  Graph graph;
  std::vector<Value> parameters;
  const auto channels = [&](const char* name) {
    parameters.push_back(graph.state({.name = name, .type = {DType::f32, vector}}));
    return parameters.back();
  };
  const auto norm = [&](Value x, const char* gamma, const char* beta) {
    return ops::batch_norm(x, ops::batch_moments(x), channels(gamma), channels(beta));
  };
  const Value x = graph.input("x", Residual::activation());
  const Value y = ops::prelu(norm(x, "g1", "b1"), channels("slope"));
  const Value z = norm(y, "g2", "b2");
  const Value weighted = ops::mul(y, graph.input("w", Residual::activation()));
  const Value a = norm(ops::add(weighted, ops::relu(z)), "g3", "b3");
  const Value out = ops::mul(a, ops::relu(a));
  graph.fetch("out", out);
  const Seed seed{out, graph.input("dout", Residual::activation())};
  parameters.push_back(x);
  const auto found = gradients(graph, std::span(&seed, 1), parameters);
  for (std::size_t i = 0; i < found.size(); ++i) graph.fetch(std::to_string(i), found[i]);
  const auto plain = remove_dead(graph);
  const auto result = fused(*plain);
  EXPECT_EQ(count(*result, "norm_chain statistics norm prelu statistics norm"), 1);
  EXPECT_EQ(count(*result, "norm_chain_grad norm add prelu sums input"), 1);
  EXPECT_EQ(count(*result, "norm_chain_grad add sums input"), 1);
  expect_equal_results(*plain, *result);
}

// Activations made again for the backward walk have moments that are there already.
TEST(Fuse, CopiesOfNormsTakeTheMomentsThatAreThere) {
  Graph graph;
  const auto channels = [&](const char* name) { return graph.input(name, {DType::f32, vector}); };
  const Value x = graph.input("x", Residual::activation());
  const ops::Moments moments = ops::batch_moments(x);
  const Value gamma = channels("gamma"), beta = channels("beta"), slope = channels("slope");
  const auto activation = [&] {
    return ops::prelu(ops::batch_norm(x, moments, gamma, beta), slope);
  };
  const Value first = ops::mul(activation(), x);
  graph.fetch("y", ops::mul(activation(), first));
  const auto result = fused(graph);
  EXPECT_EQ(count(*result, "norm_chain statistics norm prelu"), 1);
  EXPECT_EQ(count(*result, "norm_chain norm prelu"), 1);
  expect_equal_results(graph, *result);
}

TEST(Fuse, KeepsTheReductionOverRanksBetweenSumsAndGradient) {
  Residual block(1, 2);
  block.backward();
  const auto graph = remove_dead(block.graph);
  const auto result = fuse(*graph, takes_fused_norms);
  EXPECT_EQ(count(*result, "all_reduce"), count(*graph, "all_reduce"));
  ASSERT_EQ(count(*result, "norm_chain_grad prelu input"), 1);
  for (std::int32_t i = 0; i < result->size(); ++i) {
    const Node& node = result->node(i);
    if (chain_title(node) != "norm_chain_grad prelu input") continue;
    EXPECT_EQ(node.inputs[7].node().op->name, "all_reduce");
    EXPECT_EQ(chain_title(node.inputs[7].node().inputs[0].node()), "norm_chain_grad prelu sums");
    EXPECT_EQ(node.attributes.integer("ranks"), 2);
  }
}

TEST(Fuse, EvaluationFiresAndComputesTheSame) {
  Evaluation evaluation;
  const auto result = fused(evaluation.graph);
  EXPECT_EQ(count(*result, "norm_chain constant norm prelu"), 1);
  EXPECT_EQ(count(*result, "norm_chain constant norm add"), 1);
  EXPECT_EQ(count(*result, "batch_norm_fixed"), 0);
  expect_equal_results(evaluation.graph, *result);
}

TEST(Fuse, LeavesWhatIsUsedElsewhere) {
  {
    Residual block(1);  // z is fetched
    block.backward();
    block.graph.fetch("z", block.z1);
    const auto graph = remove_dead(block.graph);
    const auto result = fused(*graph);
    EXPECT_EQ(count(*result, "prelu"), 1);
    EXPECT_EQ(count(*result, "norm_chain_grad prelu sums"), 0);
    expect_equal_results(*graph, *result);
  }
  {
    Residual block(1);  // z has one more use
    block.graph.fetch("y", block.y);
    block.graph.fetch("other", ops::relu(block.z1));
    const auto result = fused(block.graph);
    EXPECT_EQ(count(*result, "prelu"), 1);
    expect_equal_results(block.graph, *result);
  }
  {
    Residual block(1);  // the last batch norm's output is fetched: no addition into it
    const Value normalized = block.y.node().inputs[0];
    block.graph.fetch("y", block.y);
    block.graph.fetch("normalized", normalized);
    const auto result = fused(block.graph);
    EXPECT_EQ(count(*result, "add"), 1);
    EXPECT_EQ(count(*result, "norm_chain statistics norm prelu"), 1);
    expect_equal_results(block.graph, *result);
  }
}

TEST(Fuse, LeavesStatesThatAreWrittenInBetween) {
  Graph graph;
  const auto channels = [&](const char* name) {
    return graph.state({.name = name, .type = {DType::f32, vector}});
  };
  const Value x = graph.input("x", Residual::activation());
  const Value mean = channels("mean"), variance = channels("variance");
  const Value gamma = channels("gamma"), beta = channels("beta");
  const Value z = ops::batch_norm_fixed(x, mean, variance, gamma, beta, 1e-5);
  ops::update_running(mean, variance, ops::batch_moments(x), graph.input("ok", {DType::f32, {}}),
                      0.1, 120);
  graph.fetch("y", ops::prelu(z, channels("slope")));
  EXPECT_EQ(count(*fuse(graph, takes_fused_norms), "norm_chain constant norm prelu"), 0);
}

TEST(Fuse, LeavesLayoutsThatNoFusedKernelTakes) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, image});
  const auto channels = [&](const char* name) { return graph.input(name, {DType::f32, vector}); };
  const Value z = ops::batch_norm(x, ops::batch_moments(x), channels("gamma"), channels("beta"));
  graph.fetch("y", ops::prelu(z, channels("slope")));
  EXPECT_EQ(count(*fuse(graph, takes_fused_norms), "prelu"), 1);
}

}  // namespace
}  // namespace ftrain::cpu
