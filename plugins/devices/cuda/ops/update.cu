// What the step changes in place: parameters, by the optimizer's own device functions.
#include "core/compile/merge_updates.h"
#include "ftrain/model/device_functions.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/ops/update.h"
#include "plugins/devices/cuda/ops/node_kernel.h"
#include "plugins/devices/cuda/ops/running.h"

namespace ftrain::cuda {
namespace {

// ---- optimizer_update
namespace in = update_operand;

const DeviceUpdate* device_functions(const Node& node) {
  return static_cast<const DeviceUpdate*>(node.attributes.payload<Update>("update").cuda);
}

std::string refuse_functions(const Node& node) {
  if (device_functions(node) != nullptr) return {};
  return "the optimizer '" + node.attributes.payload_pointer("update")->text() +
         "' was built without nvcc: it has no device functions";
}

std::string refuse_update(const Node& node, const KernelEnvironment& environment) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid() || i == in::step) continue;
    if (node.input(i).dtype != DType::f32) return "is for f32 only, not " + node.input(i).text();
    if (in::is_tensor(i) && node.input(i).layout != node.input(0).layout) {
      return "wants one order, not both " + node.input(0).text() + " and " + node.input(i).text();
    }
  }
  if (std::string reason = refuse_functions(node); !reason.empty()) return reason;
  return refuse_storage(node, environment);
}

std::unique_ptr<Kernel> make_update(const Node& node, const KernelEnvironment& environment) {
  const Attributes& a = node.attributes;
  std::vector<float*> slots(node.inputs.size() - in::first_slot);
  return kernel_of(environment,
                   [n = elements(node.input(0)), payload = a.payload_pointer("update"),
                    functions = device_functions(node), factor = a.number("rate_factor"),
                    decay = a.number("decay"),
                    slots = std::move(slots)](const Buffers& at, cudaStream_t stream) mutable {
                     for (std::size_t s = 0; s < slots.size(); ++s)
                       slots[s] = at.state<float>(in::first_slot + s);
                     const DeviceTensor tensor{.parameter = at.state<float>(in::parameter),
                                               .slots = slots.data(),
                                               .gradient = at.input<float>(in::gradient),
                                               .count = n};
                     functions->dense(static_cast<const Update&>(*payload).functor, &tensor, 1,
                                      {.rate = at.input<float>(in::rate),
                                       .ok = at.input<float>(in::ok),
                                       .coefficient = at.input<float>(in::coefficient),
                                       .step = at.input<std::int64_t>(in::step),
                                       .rate_factor = factor,
                                       .decay = decay},
                                      stream);
                   });
}

// ---- optimizer_update_many: the same for many tensors, in as few launches as they fit, with
// copies in 16 bits of some. Inputs: see ManyUpdates.
std::string refuse_many(const Node& node, const KernelEnvironment&) {
  const ManyUpdates many(node);
  for (std::size_t i = 0; i < many.parameter(many.tensors); ++i) {
    if (!node.inputs[i].valid() || i == many.step) continue;
    if (node.input(i).dtype != DType::f32) return "is for f32 only, not " + node.input(i).text();
  }
  for (std::size_t t = 0; t < many.tensors; ++t) {
    const TensorType& parameter = node.input(many.parameter(t));
    for (std::size_t i = 1; i < 2 + many.slots; ++i) {
      const TensorType& other = node.input(many.parameter(t) + i);
      if (other.layout != parameter.layout) {
        return "wants one order, not both " + parameter.text() + " and " + other.text();
      }
    }
    if (!many.copies || !node.inputs[many.copy(t)].valid()) continue;
    const TensorType& copy = node.input(many.copy(t));
    if (copy.dtype != DType::bf16 && copy.dtype != DType::f16) {
      return "keeps copies in bf16 and f16 only, not in " + copy.text();
    }
  }
  return refuse_functions(node);
}

std::unique_ptr<Kernel> make_many(const Node& node, const KernelEnvironment& environment) {
  const Attributes& a = node.attributes;
  const ManyUpdates many(node);
  std::vector<DeviceTensor> tensors(many.tensors);
  for (std::size_t t = 0; t < many.tensors; ++t) {
    tensors[t].count = elements(node.input(many.parameter(t)));
    if (many.copies && node.inputs[many.copy(t)].valid()) {
      tensors[t].copy_dtype = node.input(many.copy(t)).dtype;
    }
  }
  std::vector<float*> slots(many.tensors * many.slots);
  return kernel_of(
      environment,
      [many, payload = a.payload_pointer("update"), functions = device_functions(node),
       factor = a.number("rate_factor"), decay = a.number("decay"), slots = std::move(slots),
       tensors = std::move(tensors)](const Buffers& at, cudaStream_t stream) mutable {
        for (std::size_t t = 0; t < many.tensors; ++t) {
          const std::size_t parameter = many.parameter(t);
          float** const own = slots.data() + t * many.slots;
          for (std::size_t s = 0; s < many.slots; ++s) own[s] = at.state<float>(parameter + 2 + s);
          tensors[t].parameter = at.state<float>(parameter);
          tensors[t].slots = own;
          tensors[t].gradient = at.input<float>(parameter + 1);
          if (many.copies) tensors[t].copy = at.inputs[many.copy(t)];
        }
        functions->dense(static_cast<const Update&>(*payload).functor, tensors.data(),
                         static_cast<std::int64_t>(tensors.size()),
                         {.rate = at.input<float>(many.rate),
                          .ok = at.input<float>(many.ok),
                          .coefficient = at.input<float>(many.coefficient),
                          .step = at.input<std::int64_t>(many.step),
                          .rate_factor = factor,
                          .decay = decay},
                         stream);
      });
}

}  // namespace

void add_update_kernels(KernelList& list) {
  list.add({"optimizer_update", own_name, 10, refuse_update, make_update});
  list.add({"optimizer_update_many", own_name, 10, refuse_many, make_many});
  add_running_kernels(list);
}

}  // namespace ftrain::cuda
