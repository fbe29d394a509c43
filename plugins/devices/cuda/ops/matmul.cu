// Products of matrices by the device's own kernel: where cuBLASLt is not there, or refuses.
#include "plugins/devices/cuda/ops/matmul.h"

#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {

std::string refuse_product(const Node& node) {
  for (const std::size_t i : {0, 1}) {
    const DType dtype = node.input(i).dtype;
    if (node.input(i).layout != row_major) return "wants rows, not " + node.input(i).text();
    if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16) {
      return "multiplies f32, bf16 and f16, not " + node.input(i).text();
    }
  }
  const TensorType& result = node.outputs[0];
  return result.dtype == DType::f32 ? "" : "sums in f32, not in " + result.text();
}

std::unique_ptr<Kernel> product_kernel(std::shared_ptr<const ProductPlan> plan,
                                       const KernelEnvironment& environment) {
  const std::size_t scratch = plan->scratch_bytes();
  return kernel_of(environment,
                   [plan = std::move(plan)](const Buffers& at, cudaStream_t stream) {
                     plan->run(at.inputs[0], at.inputs[1], at.output<float>(0), false, at.scratch,
                               stream);
                   },
                   {.scratch = scratch});
}

void add_product_kernels(KernelList& list) {
  list.add(
      {.op = "matmul",
       .name = own_name,
       .priority = 10,
       .refuse = [](const Node& node, const KernelEnvironment&) { return refuse_product(node); },
       .make =
           [](const Node& node, const KernelEnvironment& environment) {
             return product_kernel(
                 plan_own_product(product_of(node, false), context_of(environment)), environment);
           }});
}

}  // namespace ftrain::cuda
