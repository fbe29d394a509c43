// Runs small graphs on whole CPU devices, for tests that compare devices, stores and programs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ftrain/graph/gradients.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/device.h"

namespace ftrain::cpu {

inline std::unique_ptr<CpuDevice> open_device(const std::string& kernels = "auto",
                                              const std::string& isa = "auto") {
  auto device = std::make_unique<CpuDevice>();
  device->threads = 2;
  device->kernel_choice = kernels;
  device->isa = isa;
  device->autotune = false;  // the kernels that a test expects are those of the fixed order
  device->open(0, 1);
  return device;
}

// Numbers in [-1, 1) that look random and are the same everywhere.
inline std::vector<float> noise(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint32_t state = seed * 2654435761u + 12345u;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return values;
}

inline std::uint32_t seed_of(const std::string& name) {
  std::uint32_t seed = 7;
  for (const char c : name) seed = seed * 31 + static_cast<std::uint32_t>(c);
  return seed;
}

using Tensors = std::map<std::string, std::vector<float>>;

inline void fill_states(StateStore& store) {
  for (const StateStore::Entry& entry : store.entries()) {
    store.write(entry.spec.name,
                noise(entry.spec.type.shape.elements(), seed_of(entry.spec.name)).data());
  }
}

inline void fill_inputs(Executable& executable) {
  for (const Graph::Named& input : executable.program().graph->inputs()) {
    executable.write(input.name, noise(input.value.shape().elements(), seed_of(input.name)).data());
  }
}

inline Tensors results(Executable& executable, const StateStore& store) {
  Tensors found;
  for (const Graph::Named& fetch : executable.program().graph->fetches()) {
    auto& values = found[fetch.name];
    values.resize(static_cast<std::size_t>(fetch.value.shape().elements()));
    executable.read(fetch.name, values.data());
  }
  for (const StateStore::Entry& entry : store.entries()) {
    auto& values = found[entry.spec.name];
    values.resize(static_cast<std::size_t>(entry.spec.type.shape.elements()));
    store.read(entry.spec.name, values.data());
  }
  return found;
}

// States and inputs full of noise, `steps` runs: everything fetched, and every state.
inline Tensors run_steps(CpuDevice& device, const Graph& graph, int steps = 1,
                         std::string* kernels = nullptr) {
  const auto store = device.make_store();
  const auto executable =
      device.compile(device.prepare(graph, store.get(), nullptr), *store, nullptr);
  fill_states(*store);
  fill_inputs(*executable);
  for (int i = 0; i < steps; ++i) executable->run();
  if (kernels != nullptr) *kernels = executable->program().kernels_text();
  return results(*executable, *store);
}

// The largest difference of two tensors over the largest value of the second.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    most = std::max(most, std::abs(static_cast<double>(b[i])));
    if (a[i] != a[i]) return 1e30;
  }
  return difference / std::max(most, 1e-30);
}

// momentum = 0.9 momentum + g; parameter -= rate momentum
class TestMomentum final : public Update {
 public:
  TestMomentum() { f32 = apply<float>, f64 = apply<double>; }
  std::string text() const override { return "momentum of a test"; }

 private:
  template <class T>
  static void apply(const void*, T* parameter, T* const* slots, const T* gradient,
                    std::int64_t count, const UpdateScalars& scalars) {
    for (std::int64_t i = 0; i < count; ++i) {
      slots[0][i] = T(0.9) * slots[0][i] + T(scalars.coefficient) * gradient[i];
      parameter[i] -= T(scalars.rate) * slots[0][i];
    }
  }
};

// A small network with everything that a step has: an image's convolution, a residual block with
// batch norms and PReLU, a depthwise convolution, a flattened product, gradients, and an update of
// every parameter. `training` false: the forward alone.
inline void build_step(Graph& graph, bool training, std::int64_t batch = 4) {
  std::vector<Value> parameters;
  const auto parameter = [&](std::string name, Shape shape) {
    parameters.push_back(graph.state({.name = std::move(name), .type = {DType::f32, shape}}));
    return parameters.back();
  };
  const auto norm = [&](const std::string& name, Value x) {
    const Shape channels{x.shape()[1]};
    const Value gamma = parameter(name + ".weight", channels);
    const Value beta = parameter(name + ".bias", channels);
    return ops::batch_norm(x, ops::batch_moments(x), gamma, beta, {});
  };
  const Value image = graph.input("image", {DType::f32, Shape{batch, 3, 12, 12}});
  Value x = ops::conv2d(image, parameter("conv1", {32, 3, 3, 3}), {.padding = 1});
  x = ops::prelu(norm("bn1", x), parameter("prelu1", {32}));
  Value y = norm("bn2", ops::conv2d(x, parameter("conv2", {32, 32, 3, 3}), {.padding = 1}));
  x = ops::add(x, y);
  x = ops::conv2d(x, parameter("depthwise", {32, 1, 3, 3}),
                  {.stride = 2, .padding = 1, .groups = 32});
  x = ops::relu(norm("bn3", x));
  x = ops::linear(ops::flatten(x), parameter("fc", {8, 32 * 36}));
  graph.fetch("embedding", x);
  if (!training) return;
  const Value loss = ops::mean(ops::mul(x, x));
  graph.fetch("loss", loss);
  const Value one = ops::constant(graph, 1), rate = ops::constant(graph, 0.01);
  const Seed seed{loss, one};
  const std::vector<Value> found = gradients(graph, {&seed, 1}, parameters);
  graph.fetch("norm", ops::squared_norm(found));
  const auto update = std::make_shared<TestMomentum>();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    StateSpec slot = graph.state_of(parameters[i])->spec;
    slot.role = StateSpec::Role::slot;
    slot.name += ".momentum";
    ops::optimizer_update(parameters[i], {graph.state(slot)}, found[i], rate, {}, one, {}, update,
                          1, 0);
  }
}

}  // namespace ftrain::cpu
