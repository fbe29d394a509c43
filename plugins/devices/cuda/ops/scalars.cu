// The step's guards.
#include "plugins/devices/cuda/ops/kernels/scalars.cuh"
#include "plugins/devices/cuda/ops/pointwise.h"

namespace ftrain::cuda {
namespace {

std::string refuse_scalars(const Node& node, const KernelEnvironment&) {
  for (const Value& input : node.inputs) {
    if (input.dtype() != DType::f32) return "is for f32 scalars only, not " + input.type().text();
  }
  for (const TensorType& output : node.outputs) {
    if (output.dtype != DType::f32) return "is for f32 scalars only, not " + output.text();
  }
  return {};
}

std::unique_ptr<Kernel> make_constant(const Node& node, const KernelEnvironment& environment) {
  const auto value = static_cast<float>(node.attributes.number("value"));
  return kernel_of(environment, [value](const Buffers& at, cudaStream_t stream) {
    launch(store_constant, {.threads = 1}, stream, value, at.output<float>(0));
  });
}

// Inputs: scale and steps, which it writes, ok.
std::unique_ptr<Kernel> make_loss_scale(const Node& node, const KernelEnvironment& environment) {
  const LossScaleRule rule{.growth = static_cast<float>(node.attributes.number("growth")),
                           .backoff = static_cast<float>(node.attributes.number("backoff")),
                           .interval = static_cast<float>(node.attributes.integer("interval"))};
  return kernel_of(environment, [rule](const Buffers& at, cudaStream_t stream) {
    launch(update_loss_scale, {.threads = 1}, stream, rule, at.state<float>(0), at.state<float>(1),
           at.input<float>(2));
  });
}

std::unique_ptr<Kernel> make_clip(const Node& node, const KernelEnvironment& environment) {
  const double limit = node.attributes.number("limit");
  return kernel_of(environment, [limit](const Buffers& at, cudaStream_t stream) {
    launch(clip_coefficient, {.threads = 1}, stream, limit, at.input<float>(0),
           at.output<float>(0));
  });
}

std::unique_ptr<Kernel> make_finite(const Node&, const KernelEnvironment& environment) {
  return kernel_of(environment, [](const Buffers& at, cudaStream_t stream) {
    ScalarTable table;
    bool goes_on = false;
    for (std::size_t i = 0; i < at.inputs.size(); ++i) {
      table.at[table.count++] = at.input<float>(i);
      if (table.count < ScalarTable::most && i + 1 < at.inputs.size()) continue;
      launch(all_finite, {.threads = warp_size}, stream, table, goes_on, at.output<float>(0));
      table.count = 0;
      goes_on = true;
    }
  });
}

}  // namespace

void add_scalar_kernels(KernelList& list) {
  list.add({"constant", own_name, 10, refuse_scalars, make_constant});
  list.add({"update_loss_scale", own_name, 10, refuse_scalars, make_loss_scale});
  list.add({"clip_coefficient", own_name, 10, refuse_scalars, make_clip});
  list.add({"all_finite", own_name, 10, refuse_scalars, make_finite});
}

}  // namespace ftrain::cuda
