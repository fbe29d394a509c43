// The ops norm_chain and norm_chain_grad: which of the kernels of batch norms has a chain.
#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/simd/norm_kernel.h"

namespace ftrain::cpu {
namespace {

ChainKernel forward_of(const Node& node) {
  return NormChain::of(node).statistics == NormChain::Statistics::own
             ? chains_of_own_statistics()
             : chains_of_given_statistics();
}

ChainKernel gradient_of(const Node& node) {
  const NormChainGrad chain = NormChainGrad::of(node);
  if (chain.sums && chain.input) return gradients_with_their_sums();
  return chain.sums ? gradients_of_sums_alone() : gradients_of_given_sums();
}

template <ChainKernel (*kernel_of)(const Node&)>
std::string refuse(const Node& node, const KernelEnvironment& environment) {
  return kernel_of(node).refuse(node, environment);
}
template <ChainKernel (*kernel_of)(const Node&)>
std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return kernel_of(node).make(node, environment);
}

}  // namespace

void add_norm_chain_kernels(KernelList& list) {
  list.add({"norm_chain", "simd", 10, refuse<forward_of>, make<forward_of>});
  list.add({"norm_chain_grad", "simd", 10, refuse<gradient_of>, make<gradient_of>});
}

}  // namespace ftrain::cpu
