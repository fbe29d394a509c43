#include "plugins/devices/cpu/winograd/winograd.h"

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/winograd/geometry.h"

namespace ftrain::cpu {
namespace winograd {

Passes passes_for(const std::string& isa) {
  Passes passes;
  add_transforms(isa, passes);
  add_products(isa, passes);
  return passes;
}

std::string refuse(const Node& node, const KernelEnvironment& environment, DType images) {
  if (!options_of(environment).winograd) return "switched off";
  const ConvolutionTypes t = convolution_types(node);
  if (t.x.dtype != images || t.y.dtype != images || t.weight.dtype != DType::f32) {
    return "is for images of " + std::string(name_of(images)) + " and weights of f32";
  }
  const Shape& weight = t.weight.shape;
  if (weight[2] != 3 || weight[3] != 3 || t.stride != 1 || t.groups != 1 || t.padding > 2) {
    return "is for 3x3 kernels of stride 1 without groups";
  }
  const std::int64_t block = preferred_block(environment.isa);
  if (block != passes_for(environment.isa).block) return "this CPU has no such vectors";
  if (channel_block(t.x.layout) != block || channel_block(t.y.layout) != block) {
    return "the images must lie in blocks of " + std::to_string(block) + " channels";
  }
  const std::string number = std::to_string(block);
  if (t.weight.layout != "ABcd" + number + "b" + number + "a") {
    return "the weight must lie in blocks of channels";
  }
  return "";
}

namespace {

template <DType images>
std::string refuse_all_but(const Node& node, const KernelEnvironment& environment) {
  return refuse(node, environment, images);
}

}  // namespace
}  // namespace winograd

void add_winograd_kernels(KernelList& list) {
  using namespace winograd;
  const auto f32 = refuse_all_but<DType::f32>;
  list.add({"conv2d", "winograd", 22, f32, make_convolution, true});
  list.add({"conv2d_input_grad", "winograd", 22, f32, make_convolution, true});
  list.add({"conv2d_weight_grad", "winograd", 22, f32, make_weight_grad, true});
  // Images of bf16 are widened as they are read and rounded as they are written.
  const auto bf16 = refuse_all_but<DType::bf16>;
  list.add({"conv2d", "winograd in f32", 22, bf16, make_convolution, true});
  list.add({"conv2d_input_grad", "winograd in f32", 22, bf16, make_convolution, true});
  list.add({"conv2d_weight_grad", "winograd in f32", 22, bf16, make_weight_grad, true});
}

}  // namespace ftrain::cpu
