#include "plugins/devices/cpu/reference/plain.h"

#include "plugins/devices/cpu/kernels.h"

namespace ftrain::cpu {
namespace {

std::vector<TensorType> operands_of(const Node& node) {
  std::vector<TensorType> types = node.outputs;
  for (const Value& input : node.inputs) {
    if (input.valid()) types.push_back(input.type());
  }
  return types;
}

}  // namespace

DType computed_in(const Node& node) {
  for (const TensorType& type : operands_of(node)) {
    if (is_floating(type.dtype)) return type.dtype;
  }
  return DType::f32;
}

std::string refuse_layouts(const Node& node, const KernelEnvironment&) {
  for (const TensorType& type : operands_of(node)) {
    if (!type.layout.empty()) return "is for row-major tensors only, not " + type.text();
  }
  return {};
}

std::string refuse_plain(const Node& node, const KernelEnvironment& environment) {
  const DType dtype = computed_in(node);
  if (dtype != DType::f32 && dtype != DType::f64) {
    return "computes in f32 and f64 only, not " + std::string(name_of(dtype));
  }
  for (const TensorType& type : operands_of(node)) {
    if (is_floating(type.dtype) && type.dtype != dtype) {
      return "wants one floating type, not both " + std::string(name_of(dtype)) + " and " +
             std::string(name_of(type.dtype));
    }
  }
  return refuse_layouts(node, environment);
}

void add_reference_kernels(KernelList& list) {
  add_plain_elementwise(list);
  add_plain_products(list);
  add_plain_reductions(list);
  add_plain_normalizations(list);
  add_plain_step(list);
}

}  // namespace ftrain::cpu
