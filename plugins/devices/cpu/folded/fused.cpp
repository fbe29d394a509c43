// A folded convolution that is oneDNN's own with bias and addition: no pass is left. oneDNN has
// only plain loops for a convolution with a PReLU of a slope for each channel.
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/folded/folded.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/onednn/onednn.h"
#include "plugins/devices/cpu/onednn/sequence.h"

namespace ftrain::cpu {
namespace {

using dnnl::memory;

memory::desc bias_of(const Node& node) {
  return {{node.input(2).shape[0]}, memory::data_type::f32, memory::format_tag::x};
}

dnnl::convolution_forward::primitive_desc describe_folded(const Node& node) {
  const ConvolutionTypes t = convolution_types(node);
  const Shape& w = t.weight.shape;
  dnnl::post_ops steps;
  if (node.inputs[4].valid()) {
    steps.append_binary(dnnl::algorithm::binary_add, *describe(node.input(4)));
  }
  return folded_forward_of(
      {.src = *describe(t.x),
       .weights = describe_any({w[0], w[1], w[2], w[3]}, memory::data_type::f32),
       .dst = *describe(t.y),
       .stride = t.stride,
       .padding = t.padding},
      bias_of(node), steps);
}

std::string refuse(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  if (t.x.dtype != DType::f32 || t.y.dtype != DType::f32) return "only f32";
  if (t.groups != 1) return "is for convolutions without groups";
  if (node.inputs[3].valid()) return "oneDNN has no fast PReLU behind a convolution";
  if (node.input(2).shape.rank() != 1) return "the bias depends on the position";
  if (!describe(t.x) || !describe(t.y) || !describe(t.weight)) return "a layout is not oneDNN's";
  if (node.inputs[4].valid() && node.input(4) != t.y) return "operands in different layouts";
  const auto desc = describe_folded(node);
  return !desc || is_plain(desc) ? "oneDNN has only plain loops for these shapes" : "";
}

std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  const auto desc = describe_folded(node);
  auto sequence = std::make_unique<Sequence>();
  const auto w = sequence->arranged(sequence->input(1, *describe(t.weight)), desc.weights_desc());
  std::unordered_map<int, Sequence::Slot> operands{
      {DNNL_ARG_SRC, sequence->input(0, desc.src_desc())},
      {DNNL_ARG_WEIGHTS, w},
      {DNNL_ARG_BIAS, sequence->input(2, desc.bias_desc())},
      {DNNL_ARG_DST, sequence->output(0, desc.dst_desc())}};
  if (node.inputs[4].valid()) {
    operands[DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1] =
        sequence->input(4, desc.dst_desc());
  }
  sequence->run_with_scratchpad(desc, dnnl::convolution_forward(desc), operands);
  return sequence;
}

}  // namespace

void add_onednn_folded_kernels(KernelList& list) {
  list.add({"conv2d_folded", "onednn direct", 20, refuse, make});
}

void add_folded_kernels(KernelList& list) {
  add_plain_folded_kernels(list);
  add_onednn_folded_kernels(list);
  add_sliced_folded_kernels(list);
}

}  // namespace ftrain::cpu
