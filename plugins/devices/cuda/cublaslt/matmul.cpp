// Products of matrices by cuBLASLt, or by whatever stands behind its interface.
#include "plugins/devices/cuda/ops/matmul.h"

#include "plugins/devices/cuda/cublaslt/cublas.h"

namespace ftrain::cuda {
namespace {

std::string refuse(const Node& node, const KernelEnvironment& environment) {
  const Context& context = context_of(environment);
  if (context.cublas == nullptr) return "cuBLASLt was not opened";
  if (std::string reason = refuse_product(node); !reason.empty()) return reason;
  return context.cublas->refuse(product_of(node, context.tf32));
}

std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  const Context& context = context_of(environment);
  return product_kernel(context.cublas->plan(product_of(node, context.tf32)), environment);
}

}  // namespace

void add_cublas_kernels(KernelList& list) {
  list.add({.op = "matmul", .name = "cublaslt", .priority = 30, .refuse = refuse, .make = make});
}

}  // namespace ftrain::cuda
