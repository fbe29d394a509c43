// What the step changes in place: parameters by the optimizer's own device functions, and running
// statistics.
#include "plugins/devices/cuda/kernels/update.cuh"

#include "core/model/device_functions.h"
#include "core/model/optimizer.h"
#include "plugins/devices/cuda/node_kernel.h"

namespace ftrain::cuda {
namespace {

// ---- optimizer_update. Inputs: parameter, gradient, rate, ok, coefficient (may be missing),
// slots...
constexpr std::size_t first_slot = 5;

const DeviceUpdate* device_functions(const Node& node) {
  return static_cast<const DeviceUpdate*>(node.attributes.payload<Update>("update").cuda);
}

std::string refuse_update(const Node& node, const KernelEnvironment& environment) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) continue;
    if (node.input(i).dtype != DType::f32) return "is for f32 only, not " + node.input(i).text();
    const bool tensor = i < 2 || i >= first_slot;
    if (tensor && node.input(i).layout != node.input(0).layout) {
      return "wants one order, not both " + node.input(0).text() + " and " + node.input(i).text();
    }
  }
  if (device_functions(node) == nullptr) {
    return "the optimizer '" + node.attributes.payload_pointer("update")->text() +
           "' was built without nvcc: it has no device functions";
  }
  return refuse_storage(node, environment);
}

std::unique_ptr<Kernel> make_update(const Node& node, const KernelEnvironment& environment) {
  const Attributes& a = node.attributes;
  std::vector<float*> slots(node.inputs.size() - first_slot);
  return kernel_of(environment,
                   [n = elements(node.input(0)), payload = a.payload_pointer("update"),
                    functions = device_functions(node), factor = a.number("rate_factor"),
                    decay = a.number("decay"),
                    slots = std::move(slots)](const Buffers& at, cudaStream_t stream) mutable {
                     for (std::size_t s = 0; s < slots.size(); ++s)
                       slots[s] = at.state<float>(first_slot + s);
                     const DeviceTensor tensor{.parameter = at.state<float>(0),
                                               .slots = slots.data(),
                                               .gradient = at.input<float>(1),
                                               .count = n};
                     functions->dense(static_cast<const Update&>(*payload).functor, &tensor, 1,
                                      {.rate = at.input<float>(2),
                                       .ok = at.input<float>(3),
                                       .coefficient = at.input<float>(4),
                                       .rate_factor = factor,
                                       .decay = decay},
                                      stream);
                   });
}

// ---- update_running
std::string refuse_running(const Node& node, const KernelEnvironment& environment) {
  for (const Value& input : node.inputs) {
    if (input.dtype() != DType::f32) return "is for f32 only, not " + input.type().text();
  }
  return refuse_storage(node, environment);
}

std::unique_ptr<Kernel> make_running(const Node& node, const KernelEnvironment& environment) {
  const Shape& moments = node.input(2).shape;
  const auto count = static_cast<double>(node.attributes.integer("count"));
  const RunningStatistics like{.running = {},
                               .batch = {},
                               .groups = moments[0],
                               .channels = moments[1],
                               .momentum = node.attributes.number("momentum"),
                               // A single sample has no unbiased variance; its biased one is taken.
                               .unbias = count > 1 ? count / (count - 1) : 1};
  return kernel_of(environment, [like](const Buffers& at, cudaStream_t stream) {
    RunningStatistics of = like;
    for (std::size_t k = 0; k < 2; ++k) {
      of.running[k] = at.state<float>(k);
      of.batch[k] = at.input<float>(2 + k);
    }
    constexpr unsigned threads = 128;
    launch(update_running,
           Grid{.blocks = dim3(blocks_for(of.channels, threads), 2), .threads = threads}, stream,
           of, at.input<float>(4));
  });
}

}  // namespace

void add_update_kernels(KernelList& list) {
  list.add({"optimizer_update", own_name, 10, refuse_update, make_update});
  list.add({"update_running", own_name, 10, refuse_running, make_running});
}

}  // namespace ftrain::cuda
