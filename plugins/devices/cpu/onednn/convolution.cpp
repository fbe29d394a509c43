#include "plugins/devices/cpu/onednn/convolution.h"

#include <string_view>
#include <type_traits>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/onednn/kernels.h"
#include "plugins/devices/cpu/onednn/sequence.h"

namespace ftrain::cpu {
namespace {

using dnnl::memory;

memory::dims weight_dims(const ConvolutionTypes& t) {
  const Shape& w = t.weight.shape;
  if (t.groups == 1) return {w[0], w[1], w[2], w[3]};
  return {t.groups, w[0] / t.groups, w[1], w[2], w[3]};
}

// Depthwise weights [K, 1, R, S] in blocks of K: one order, named for four axes and for five.
struct DepthwiseTag {
  std::string_view word;
  memory::format_tag tag;
};
constexpr DepthwiseTag depthwise_tags[] = {{"Abcd16a", memory::format_tag::Abcde16a},
                                           {"Abcd8a", memory::format_tag::Abcde8a}};

// Weights and their gradients are f32, whatever the images are; kernels for bf16 round a copy.
std::optional<memory::desc> describe_weight(const ConvolutionTypes& t) {
  if (t.weight.dtype != DType::f32) return std::nullopt;
  if (t.groups == 1) return describe(t.weight);
  const memory::dims dims = weight_dims(t);
  if (t.weight.layout.empty()) {
    return memory::desc(dims, memory::data_type::f32, memory::format_tag::abcde);
  }
  for (const auto& [word, tag] : depthwise_tags) {
    if (t.depthwise() && t.weight.layout == word) {
      return memory::desc(dims, memory::data_type::f32, tag);
    }
  }
  return std::nullopt;
}

std::string weight_word(const ConvolutionTypes& t, const memory::desc& desc) {
  if (t.groups == 1) return layout_word(desc, t.weight.shape).value_or("");
  for (const auto& [word, tag] : depthwise_tags) {
    const TensorType type{DType::f32, t.weight.shape, std::string(word)};
    if (t.depthwise() && desc == memory::desc(weight_dims(t), memory::data_type::f32, tag) &&
        describe(type)) {
      return type.layout;
    }
  }
  return "";
}

// What a node makes: oneDNN wants bf16 weights beside bf16 images, but makes their gradient in f32.
enum class Made { image, weight };

Convolution problem(const ConvolutionTypes& t, Made made, bool any_activations,
                    dnnl::algorithm algorithm) {
  const memory::data_type data = *data_type_of(t.x.dtype);
  const auto activation = [&](const TensorType& type) {
    if (!any_activations) return *describe(type);
    return describe_any({type.shape[0], type.shape[1], type.shape[2], type.shape[3]}, data);
  };
  return {
      .src = activation(t.x),
      .weights = describe_any(weight_dims(t), made == Made::weight ? memory::data_type::f32 : data),
      .dst = activation(t.y),
      .stride = t.stride,
      .padding = t.padding,
      .algorithm = algorithm};
}

constexpr auto direct = dnnl::algorithm::convolution_direct;
constexpr auto winograd = dnnl::algorithm::convolution_winograd;

// The fast implementation for the operands as they lie; when there is only a plain loop for them,
// the one that oneDNN prefers, with reorders around it.
template <class Make>
auto best(const ConvolutionTypes& t, Make make, dnnl::algorithm algorithm = direct) {
  constexpr Made made =
      std::is_same_v<Make, decltype(&weight_grad_of)> ? Made::weight : Made::image;
  auto desc = make(problem(t, made, false, algorithm));
  if (!desc || is_plain(desc)) {
    auto other = make(problem(t, made, true, algorithm));
    if (other && (!desc || !is_plain(other))) return other;
  }
  return desc;
}

std::string refuse(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes t = convolution_types(node);
  if (t.x.dtype != t.y.dtype || !data_type_of(t.x.dtype)) {
    return "oneDNN's convolution is for images of f32, or all of bf16";
  }
  if (t.x.dtype == DType::bf16 && !options_of(environment).bf16) return "bf16 is switched off";
  if (!describe(t.x) || !describe(t.y)) return "an activation's layout is not oneDNN's";
  if (!describe_weight(t)) return "the weight's layout is not oneDNN's";
  return "";
}

// Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2015): 3x3 products with a quarter of the multiplications, and rounding some ten times
// that of the direct sum. oneDNN has it for f32.
template <auto make>
std::string refuse_winograd(const Node& node, const KernelEnvironment& environment) {
  if (!options_of(environment).winograd) return "switched off";
  const ConvolutionTypes t = convolution_types(node);
  if (t.x.dtype != DType::f32) return "is for images of f32";
  if (t.weight.shape[2] != 3 || t.weight.shape[3] != 3 || t.stride != 1 || t.groups != 1) {
    return "is for 3x3 kernels of stride 1 without groups";
  }
  if (std::string reason = refuse(node, environment); !reason.empty()) return reason;
  if (!make(problem(t, Made::image, false, winograd))) {
    return "oneDNN has none for these shapes and this CPU";
  }
  return "";
}

template <dnnl::algorithm algorithm>
std::unique_ptr<Kernel> make_forward(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  const auto desc = best(t, forward_of, algorithm);
  auto sequence = std::make_unique<Sequence>();
  const auto x = sequence->arranged(sequence->input(0, *describe(t.x)), desc.src_desc());
  const auto w = sequence->arranged(sequence->input(1, *describe_weight(t)), desc.weights_desc());
  const auto out = sequence->output(0, *describe(t.y));
  const auto y = sequence->landing(out, desc.dst_desc());
  sequence->run_with_scratchpad(desc, dnnl::convolution_forward(desc),
                                {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
  sequence->finish(y, out);
  return sequence;
}

template <dnnl::algorithm algorithm>
std::unique_ptr<Kernel> make_input_grad(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  const auto desc = best(t, input_grad_of, algorithm);
  auto sequence = std::make_unique<Sequence>();
  const auto dy = sequence->arranged(sequence->input(0, *describe(t.y)), desc.diff_dst_desc());
  const auto w = sequence->arranged(sequence->input(1, *describe_weight(t)), desc.weights_desc());
  const auto out = sequence->output(0, *describe(t.x));
  const auto dx = sequence->landing(out, desc.diff_src_desc());
  sequence->run_with_scratchpad(
      desc, dnnl::convolution_backward_data(desc),
      {{DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_SRC, dx}});
  sequence->finish(dx, out);
  return sequence;
}

template <dnnl::algorithm algorithm>
std::unique_ptr<Kernel> make_weight_grad(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  const auto desc = best(t, weight_grad_of, algorithm);
  auto sequence = std::make_unique<Sequence>();
  const auto dy = sequence->arranged(sequence->input(0, *describe(t.y)), desc.diff_dst_desc());
  const auto x = sequence->arranged(sequence->input(1, *describe(t.x)), desc.src_desc());
  const auto out = sequence->output(0, *describe_weight(t));
  const auto dw = sequence->landing(out, desc.diff_weights_desc());
  sequence->run_with_scratchpad(
      desc, dnnl::convolution_backward_weights(desc),
      {{DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_WEIGHTS, dw}});
  sequence->finish(dw, out);
  return sequence;
}

}  // namespace

std::string preferred_weight_layout(const ConvolutionTypes& types) {
  // In bf16 the weight is rearranged as it is rounded, so its gradient has the say.
  if (types.x.dtype == DType::bf16) return made_weight_layout(types);
  const auto desc = best(types, forward_of);
  return desc ? weight_word(types, desc.weights_desc()) : "";
}

std::string made_weight_layout(const ConvolutionTypes& types) {
  if (covers_image(types)) return whole_depthwise_layout(types);
  const auto desc = best(types, weight_grad_of);
  return desc ? weight_word(types, desc.diff_weights_desc()) : "";
}

void add_convolutions(KernelList& list) {
  list.add({"conv2d", "onednn direct", 20, refuse, make_forward<direct>});
  list.add({"conv2d_input_grad", "onednn direct", 20, refuse, make_input_grad<direct>});
  list.add({"conv2d_weight_grad", "onednn direct", 20, refuse, make_weight_grad<direct>});
  list.add(
      {"conv2d", "onednn winograd", 21, refuse_winograd<forward_of>, make_forward<winograd>, true});
  list.add({"conv2d_input_grad", "onednn winograd", 21, refuse_winograd<input_grad_of>,
            make_input_grad<winograd>, true});
  list.add({"conv2d_weight_grad", "onednn winograd", 21, refuse_winograd<weight_grad_of>,
            make_weight_grad<winograd>, true});
}

}  // namespace ftrain::cpu
