// Convolutions of a few channels a group (2 of MobileFaceNet's second layer). oneDNN has only plain
// loops for groups narrower than a register, so several groups are joined into one as wide as a
// register, whose weights are block-diagonal: more products by the ratio of the widths, and still
// many times faster. The widened weights live in scratch alone.
#include <algorithm>

#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/onednn/kernels.h"
#include "plugins/devices/cpu/onednn/sequence.h"

namespace ftrain::cpu {
namespace {

using dnnl::memory;

struct Widening {
  ConvolutionTypes types;      // of the widened convolution; x and y as they are
  std::int64_t narrow = 0;     // channels of a group
  std::int64_t block = 0;      // channels of a widened one
  std::int64_t positions = 0;  // R S
};

Widening widen(const Node& node, const KernelEnvironment& environment) {
  Widening w{.types = convolution_types(node)};
  w.block = preferred_block(environment.isa);
  Shape& weight = w.types.weight.shape;
  w.narrow = weight[1];
  w.positions = weight[2] * weight[3];
  w.types.groups = weight[0] / w.block;
  weight[1] = w.block;
  return w;
}

std::string refuse(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes t = convolution_types(node);
  const std::int64_t block = preferred_block(environment.isa);
  const std::int64_t narrow = t.weight.shape[1];
  if (t.x.dtype != t.y.dtype || !data_type_of(t.x.dtype)) return "for f32 or bf16";
  if (t.x.dtype == DType::bf16 && !options_of(environment).bf16) return "bf16 is switched off";
  if (t.groups == 1 || t.depthwise()) return "for small groups, neither full nor depthwise";
  if (t.x.shape[1] != t.y.shape[1] || narrow >= block || block % narrow != 0 ||
      t.x.shape[1] % block != 0) {
    return "the channels of a group must divide a register";
  }
  if (!t.weight.layout.empty()) return "the weight must be row-major";
  if (!describe(t.x) || !describe(t.y)) return "an activation's layout is not oneDNN's";
  return "";
}

memory::dims wide_dims(const Widening& w) {
  const Shape& s = w.types.weight.shape;
  return {w.types.groups, w.block, w.block, s[2], s[3]};
}

memory::desc wide_row_major(const Widening& w) {
  return {wide_dims(w), memory::data_type::f32, memory::format_tag::abcde};
}

Convolution problem(const Widening& w, memory::data_type weights) {
  return {.src = *describe(w.types.x),
          .weights = describe_any(wide_dims(w), weights),
          .dst = *describe(w.types.y),
          .stride = w.types.stride,
          .padding = w.types.padding};
}

// Channel k of [K, narrow, R, S] stands in columns [k % block / narrow * narrow, + narrow) of row k
// of [K, block, R, S].
void expand(const Widening& w, const float* narrow, float* wide) {
  const std::int64_t rows = w.types.weight.shape[0];
  std::fill_n(wide, rows * w.block * w.positions, 0.0f);
  for (std::int64_t k = 0; k < rows; ++k) {
    const std::int64_t column = k % w.block / w.narrow * w.narrow;
    std::copy_n(narrow + k * w.narrow * w.positions, w.narrow * w.positions,
                wide + (k * w.block + column) * w.positions);
  }
}

void extract(const Widening& w, const float* wide, float* narrow) {
  const std::int64_t rows = w.types.weight.shape[0];
  for (std::int64_t k = 0; k < rows; ++k) {
    const std::int64_t column = k % w.block / w.narrow * w.narrow;
    std::copy_n(wide + (k * w.block + column) * w.positions, w.narrow * w.positions,
                narrow + k * w.narrow * w.positions);
  }
}

Sequence::Slot widened_weight(Sequence& sequence, const Widening& w, int operand,
                              const memory::desc& wanted) {
  const Shape& s = w.types.weight.shape;
  const auto given = sequence.input(operand, *describe({DType::f32, {s[0], w.narrow, s[2], s[3]}}));
  const auto wide = sequence.scratch(wide_row_major(w));
  sequence.call(given, wide, [w](const float* from, float* to) { expand(w, from, to); });
  return sequence.arranged(wide, wanted);
}

std::unique_ptr<Kernel> make_forward(const Node& node, const KernelEnvironment& environment) {
  const Widening w = widen(node, environment);
  const auto desc = forward_of(problem(w, *data_type_of(w.types.x.dtype)));
  auto sequence = std::make_unique<Sequence>();
  const auto weight = widened_weight(*sequence, w, 1, desc.weights_desc());
  sequence->run_with_scratchpad(desc, dnnl::convolution_forward(desc),
                                {{DNNL_ARG_SRC, sequence->input(0, desc.src_desc())},
                                 {DNNL_ARG_WEIGHTS, weight},
                                 {DNNL_ARG_DST, sequence->output(0, desc.dst_desc())}});
  return sequence;
}

std::unique_ptr<Kernel> make_input_grad(const Node& node, const KernelEnvironment& environment) {
  const Widening w = widen(node, environment);
  const auto desc = input_grad_of(problem(w, *data_type_of(w.types.x.dtype)));
  auto sequence = std::make_unique<Sequence>();
  const auto weight = widened_weight(*sequence, w, 1, desc.weights_desc());
  sequence->run_with_scratchpad(desc, dnnl::convolution_backward_data(desc),
                                {{DNNL_ARG_DIFF_DST, sequence->input(0, desc.diff_dst_desc())},
                                 {DNNL_ARG_WEIGHTS, weight},
                                 {DNNL_ARG_DIFF_SRC, sequence->output(0, desc.diff_src_desc())}});
  return sequence;
}

std::unique_ptr<Kernel> make_weight_grad(const Node& node, const KernelEnvironment& environment) {
  const Widening w = widen(node, environment);
  const auto desc = weight_grad_of(problem(w, memory::data_type::f32));
  auto sequence = std::make_unique<Sequence>();
  const auto made = sequence->scratch(desc.diff_weights_desc());
  sequence->run_with_scratchpad(desc, dnnl::convolution_backward_weights(desc),
                                {{DNNL_ARG_DIFF_DST, sequence->input(0, desc.diff_dst_desc())},
                                 {DNNL_ARG_SRC, sequence->input(1, desc.src_desc())},
                                 {DNNL_ARG_DIFF_WEIGHTS, made}});
  const auto wide = sequence->arranged(made, wide_row_major(w));
  const auto out = sequence->output(0, *describe(node.outputs[0]));
  sequence->call(wide, out, [w](const float* from, float* to) { extract(w, from, to); });
  return sequence;
}

}  // namespace

void add_grouped_convolutions(KernelList& list) {
  list.add({"conv2d", "onednn widened groups", 22, refuse, make_forward});
  list.add({"conv2d_input_grad", "onednn widened groups", 22, refuse, make_input_grad});
  list.add({"conv2d_weight_grad", "onednn widened groups", 22, refuse, make_weight_grad});
}

}  // namespace ftrain::cpu
