// A small step as the CUDA device rewrites it, run on the stand-in for a GPU: the numbers are those
// of the plain graph.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "ftrain/graph/gradients.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/model/layers.h"
#include "ftrain/ops.h"
#include "tests/cuda/device_kernels.h"
#include "tests/cuda/device_payloads.h"
#include "tests/cuda/graph_run.h"
#include "tests/plugins/devices/cpu/case_payloads.h"
#include "tests/plugins/devices/cpu/interpreter.h"
#include "tests/plugins/devices/cpu/step.h"

namespace ftrain::cuda {
namespace {

// A small network with what real ones have: images, residual blocks with and without a shortcut of
// its own, a depthwise convolution, a flattened product; its gradients, and an update of all.
std::unique_ptr<Graph> small_step() {
  auto graph = std::make_unique<Graph>();
  Build build{.graph = *graph};
  const Scope scope(build);
  constexpr std::int64_t batch = 4, size = 10;
  const Initializer none{};
  const Value image = graph->input("image", {DType::u8, {batch, size, size, 3}});
  build.step = graph->input("step", {DType::i64, {}});
  const Value rate = graph->input("rate", {DType::f32, {}});
  Value x = ops::image_normalize(image, build.step, {.flip = 0.5});
  const auto conv = [&](const std::string& name, Value of, std::int64_t channels,
                        std::int64_t kernel, const ops::Conv2d& options) {
    return layers::conv2d(scope, name, of, channels, kernel, options, none);
  };
  x = conv("conv1", x, 16, 3, {.padding = 1});
  x = layers::prelu(scope, "prelu", layers::batch_norm(scope, "bn1", x));
  for (const std::int64_t stride : {2, 1}) {
    const std::string name = stride == 2 ? "halved." : "same.";
    Value y = layers::batch_norm(scope, name + "bn1", x);
    y = conv(name + "conv1", y, 24, 3, {.padding = 1});
    y = layers::prelu(scope, name + "prelu", layers::batch_norm(scope, name + "bn2", y));
    y = conv(name + "conv2", y, 24, 3, {.stride = stride, .padding = 1});
    y = layers::batch_norm(scope, name + "bn3", y);
    if (stride == 2) {
      x = conv(name + "shortcut", x, 24, 1, {.stride = stride});
      x = layers::batch_norm(scope, name + "bn", x);
    }
    x = ops::add(y, x);
  }
  x = conv("depthwise", x, 24, 3, {.padding = 1, .groups = 24});
  x = layers::batch_norm(scope, "features", ops::flatten(ops::relu(x)));
  x = layers::linear(scope, "fc", x, 8, true, none);
  const Value loss = ops::mean(ops::mul(x, graph->input("seed", x.type())));
  graph->fetch("embedding", x);
  graph->fetch("loss", loss);

  std::vector<Value> parameters;
  for (const Graph::State& state : graph->states()) {
    if (state.spec.role == StateSpec::Role::parameter) parameters.push_back(state.value);
  }
  const Value one = ops::constant(*graph, 1);
  const Seed seed{loss, one};
  const std::vector<Value> found = gradients(*graph, {&seed, 1}, parameters);
  const Value squared = ops::squared_norm(found);
  graph->fetch("norm", squared);
  const Value ok = ops::all_finite({loss, squared});
  const auto update = std::make_shared<cpu::MomentumUpdate>();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    graph->fetch("gradient of " + parameters[i].node().name, found[i]);
    StateSpec slot = graph->state_of(parameters[i])->spec;
    slot.role = StateSpec::Role::slot;
    slot.name += ".momentum";
    ops::optimizer_update(parameters[i], {graph->state(slot)}, found[i], rate,
                          ops::clip_coefficient(squared, 1), ok, build.step, update, 1, 1e-3);
  }
  for (const auto& write : build.at_end) write(ok);
  return graph;
}

// Everything fetched, and every state, after two runs; leaves hold noise of their names.
template <class Run>
cpu::Tensors results_of(const Graph& graph, Run& run) {
  const auto fill = [&](const std::string& name, Value value) {
    std::vector<float> noise = cpu::noise(value.shape().elements(), cpu::seed_of(name));
    if (name.ends_with("running_var")) {
      for (float& x : noise) x = 1 + 0.5f * x;
    }
    if (name == "rate") noise = {0.01f};
    run.write(value, noise);
  };
  for (const Graph::State& state : graph.states()) fill(state.spec.name, state.value);
  for (const Graph::Named& input : graph.inputs()) fill(input.name, input.value);
  for (int i = 0; i < 2; ++i) run.run();
  cpu::Tensors found;
  for (const Graph::Named& fetch : graph.fetches()) found[fetch.name] = run.read(fetch.value);
  for (const Graph::State& state : graph.states()) found[state.spec.name] = run.read(state.value);
  return found;
}

// The plain graph by plain loops.
class PlainRun {
 public:
  explicit PlainRun(const Graph& graph) : interpreter_(graph) {}
  void write(Value value, const std::vector<float>& numbers) {
    write_numbers(value.type(), numbers, interpreter_.bytes(value));
  }
  void run() { interpreter_.run(); }
  std::vector<float> read(Value value) {
    const auto data = interpreter_.data<float>(value);
    return {data.begin(), data.end()};
  }

 private:
  cpu::Interpreter interpreter_;
};

TEST(Rewrite, GivesWhatThePlainGraphDoes) {
  put_payloads_on_device();
  const auto graph = small_step();
  PlainRun plain(*graph);
  const cpu::Tensors expected = results_of(*graph, plain);
  for (const char* policy : {"none", "cheap", "block"}) {
    const auto step = rewritten(*graph, {.recompute = policy}).graph;
    GraphRun run(*step, kernels().list, kernels().environment);
    const cpu::Tensors got = results_of(*step, run);
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [name, values] : expected) {
      // Gradients of biases are sums that nearly cancel; the norm is of their squares.
      const double closeness = name.starts_with("gradient") ? 5e-5 : name == "norm" ? 1e-4 : 1e-5;
      EXPECT_LT(cpu::distance(got.at(name), values), closeness) << name << ", recompute " << policy;
    }
  }
}

}  // namespace
}  // namespace ftrain::cuda
