// Whole CUDA devices on the stand-in for a GPU, and small programs for them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cuda/device/device.h"
#include "tests/cuda/device_payloads.h"
#include "tests/cuda/standin/standin.h"
#include "tests/plugins/devices/cpu/case_payloads.h"
#include "tests/plugins/devices/cpu/step.h"

namespace ftrain::cuda {

struct DeviceWishes {
  bool capture = true, overlap = true, check = false;
};

inline std::unique_ptr<CudaDevice> open_cuda(const DeviceWishes& wishes = {}, int rank = 0,
                                             int ranks = 1) {
  auto device = std::make_unique<CudaDevice>();
  device->autotune = false;
  device->capture = wishes.capture;
  device->overlap = wishes.overlap;
  device->check = wishes.check;
  device->open(rank, ranks);
  return device;
}

// A convolution, a slope and a product, with an update of each; `training` false: the forward
// alone, with a value that depends on a state alone. With more ranks gradients are summed.
inline std::unique_ptr<Graph> small_program(bool training, int ranks = 1) {
  put_payloads_on_device();
  auto graph = std::make_unique<Graph>();
  std::vector<Value> parameters;
  const auto parameter = [&](std::string name, Shape shape) {
    parameters.push_back(graph->state({.name = std::move(name), .type = {DType::f32, shape}}));
    return parameters.back();
  };
  const Value image = graph->input("image", {DType::f32, {4, 3, 8, 8}});
  Value x = ops::conv2d(image, parameter("conv", {16, 3, 3, 3}), {.padding = 1});
  x = ops::prelu(x, parameter("slope", {16}));
  x = ops::conv2d(x, parameter("conv2", {16, 16, 3, 3}), {.stride = 2, .padding = 1});
  Value weight = parameter("fc", {8, 256});
  if (!training) weight = ops::scale(weight, 2);
  x = ops::linear(ops::flatten(x), weight);
  graph->fetch("embedding", x);
  if (!training) return graph;
  const Value loss = ops::mean(ops::mul(x, x));
  graph->fetch("loss", loss);
  const Value rate = graph->input("rate", {DType::f32, {}}), one = ops::constant(*graph, 1);
  const Seed seed{loss, one};
  std::vector<Value> found = gradients(*graph, {&seed, 1}, parameters);
  if (ranks > 1) {
    for (Value& gradient : found) gradient = ops::all_reduce_sum(gradient, ranks);
  }
  const auto update = std::make_shared<cpu::MomentumUpdate>();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    StateSpec slot = graph->state_of(parameters[i])->spec;
    slot.role = StateSpec::Role::slot;
    slot.name += ".momentum";
    ops::optimizer_update(parameters[i], {graph->state(slot)}, found[i], rate, {}, one, {}, update,
                          1, 0);
  }
  return graph;
}

// A program on a store of a device.
struct Compiled {
  std::unique_ptr<StateStore> own;
  StateStore* store = nullptr;
  std::unique_ptr<Executable> program;

  Compiled(Device& device, const Graph& graph, StateStore* shared = nullptr,
           Communicator* communicator = nullptr)
      : own(shared == nullptr ? device.make_store() : nullptr),
        store(shared == nullptr ? own.get() : shared),
        program(device.compile(device.prepare(graph, store, communicator), *store, communicator)) {
    if (shared == nullptr) cpu::fill_states(*store);
  }

  // Inputs of that step, and the step.
  void run(int step) {
    write(step);
    program->run();
  }
  void write(int step) const {
    for (const Graph::Named& input : program->program().graph->inputs()) {
      auto values = cpu::noise(input.value.shape().elements(),
                               cpu::seed_of(input.name) + static_cast<std::uint32_t>(step));
      if (input.name == "rate") values[0] = 1e-5f;
      program->write(input.name, values.data());
    }
  }
  cpu::Tensors results() const { return cpu::results(*program, *store); }
};

// What a call throws, of that type.
template <class Error = DeviceError, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing of the sort was thrown";
}

}  // namespace ftrain::cuda
