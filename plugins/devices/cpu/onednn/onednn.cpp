#include "plugins/devices/cpu/onednn/onednn.h"

#include <cstring>
#include <map>
#include <string_view>

#include <oneapi/dnnl/dnnl_debug.h>

namespace ftrain::cpu {
namespace {

using dnnl::memory;

memory::dims dims_of(const Shape& shape) {
  if (shape.rank() == 0) return {1};
  return memory::dims(shape.extents().begin(), shape.extents().end());
}

// Every 4-D order that oneDNN has a name for.
const std::map<std::string, memory::format_tag>& tags() {
  static const std::map<std::string, memory::format_tag> map = [] {
    std::map<std::string, memory::format_tag> found;
    for (int i = dnnl_format_tag_any + 1; i < dnnl_format_tag_last; ++i) {
      const std::string name = dnnl_fmt_tag2str(static_cast<dnnl_format_tag_t>(i));
      std::string letters;
      for (const char c : name) {
        const char lower = static_cast<char>(c | 0x20);
        if (lower >= 'a' && lower <= 'z' && letters.find(lower) == std::string::npos) {
          letters += lower;
        }
      }
      if (letters.size() != 4 || letters.find_first_not_of("abcd") != std::string::npos) continue;
      found.emplace(name, static_cast<memory::format_tag>(i));
    }
    return found;
  }();
  return map;
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

void reorder_now(const memory::desc& from_desc, const void* from, const memory::desc& to_desc,
                 void* to) {
  memory source(from_desc, engine(), const_cast<void*>(from));
  memory target(to_desc, engine(), to);
  dnnl::stream stream(engine());
  dnnl::reorder(source, target).execute(stream, source, target);
  stream.wait();
}

}  // namespace

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

std::optional<memory::data_type> data_type_of(DType dtype) {
  if (dtype == DType::f32) return memory::data_type::f32;
  if (dtype == DType::bf16) return memory::data_type::bf16;
  return std::nullopt;
}

std::optional<memory::desc> describe(const TensorType& type) {
  const auto data = data_type_of(type.dtype);
  if (!data) return std::nullopt;
  const memory::dims dims = dims_of(type.shape);
  if (type.layout.empty()) {
    memory::dims strides(dims.size());
    memory::dim stride = 1;
    for (std::size_t i = dims.size(); i-- > 0;) {
      strides[i] = stride;
      stride *= dims[i];
    }
    return memory::desc(dims, *data, strides);
  }
  const auto tag = tags().find(type.layout);
  if (type.shape.rank() != 4 || tag == tags().end()) return std::nullopt;
  memory::desc desc(dims, *data, tag->second);
  if (desc.get_size() != type.bytes()) return std::nullopt;  // it would pad
  return desc;
}

memory::desc describe_any(const memory::dims& dims, memory::data_type data) {
  return memory::desc(dims, data, memory::format_tag::any);
}

std::optional<std::string> layout_word(const memory::desc& desc, const Shape& shape) {
  TensorType type{DType::f32, shape};
  if (desc.get_size() != type.bytes()) return std::nullopt;
  if (desc == *describe(type)) return std::string();
  for (const auto& [name, tag] : tags()) {
    if (desc == memory::desc(dims_of(shape), memory::data_type::f32, tag)) return name;
  }
  return std::nullopt;
}

void copy_to_row_major(const TensorType& type, const void* from, void* row_major) {
  if (type.bytes() == 0) return;  // a rank without a class of its own
  if (type.layout.empty()) {
    std::memcpy(row_major, from, type.bytes());
    return;
  }
  reorder_now(*describe(type), from, *describe({type.dtype, type.shape}), row_major);
}

void copy_from_row_major(const TensorType& type, const void* row_major, void* to) {
  if (type.bytes() == 0) return;
  if (type.layout.empty()) {
    std::memcpy(to, row_major, type.bytes());
    return;
  }
  reorder_now(*describe({type.dtype, type.shape}), row_major, *describe(type), to);
}

namespace {

// The forward convolution that a weight gradient belongs to.
Convolution with_weights_like_images(const Convolution& c) {
  Convolution forward = c;
#if DNNL_VERSION_MAJOR >= 3
  forward.weights = describe_any(c.weights.get_dims(), c.src.get_data_type());
#else
  forward.weights = describe_any(c.weights.dims(), c.src.data_type());
#endif
  return forward;
}

}  // namespace

#if DNNL_VERSION_MAJOR >= 3

dnnl::convolution_forward::primitive_desc forward_of(const Convolution& c) {
  return {engine(),
          dnnl::prop_kind::forward_training,
          c.algorithm,
          c.src,
          c.weights,
          c.dst,
          {c.stride, c.stride},
          {c.padding, c.padding},
          {c.padding, c.padding},
          user_scratchpad(),
          true};
}

dnnl::convolution_forward::primitive_desc folded_forward_of(const Convolution& c,
                                                            const memory::desc& bias,
                                                            const dnnl::post_ops& steps) {
  dnnl::primitive_attr attributes = user_scratchpad();
  attributes.set_post_ops(steps);
  return {engine(),
          dnnl::prop_kind::forward_inference,
          c.algorithm,
          c.src,
          c.weights,
          bias,
          c.dst,
          {c.stride, c.stride},
          {c.padding, c.padding},
          {c.padding, c.padding},
          attributes,
          true};
}

dnnl::convolution_backward_data::primitive_desc input_grad_of(const Convolution& c) {
  const auto hint = forward_of(c);
  if (!hint) return {};
  return {engine(),
          c.algorithm,
          c.src,
          c.weights,
          c.dst,
          {c.stride, c.stride},
          {c.padding, c.padding},
          {c.padding, c.padding},
          hint,
          user_scratchpad(),
          true};
}

dnnl::convolution_backward_weights::primitive_desc weight_grad_of(const Convolution& c) {
  const auto hint = forward_of(with_weights_like_images(c));
  if (!hint) return {};
  return {engine(),
          c.algorithm,
          c.src,
          c.weights,
          c.dst,
          {c.stride, c.stride},
          {c.padding, c.padding},
          {c.padding, c.padding},
          hint,
          user_scratchpad(),
          true};
}

dnnl::matmul::primitive_desc product_of(const memory::desc& a, const memory::desc& b,
                                        const memory::desc& c) {
  return {engine(), a, b, c, user_scratchpad(), true};
}

#else

dnnl::convolution_forward::primitive_desc forward_of(const Convolution& c) {
  const dnnl::convolution_forward::desc desc(dnnl::prop_kind::forward_training, c.algorithm, c.src,
                                             c.weights, c.dst, {c.stride, c.stride},
                                             {c.padding, c.padding}, {c.padding, c.padding});
  return {desc, user_scratchpad(), engine(), true};
}

dnnl::convolution_forward::primitive_desc folded_forward_of(const Convolution& c,
                                                            const memory::desc& bias,
                                                            const dnnl::post_ops& steps) {
  const dnnl::convolution_forward::desc desc(dnnl::prop_kind::forward_inference, c.algorithm, c.src,
                                             c.weights, bias, c.dst, {c.stride, c.stride},
                                             {c.padding, c.padding}, {c.padding, c.padding});
  dnnl::primitive_attr attributes = user_scratchpad();
  attributes.set_post_ops(steps);
  return {desc, attributes, engine(), true};
}

dnnl::convolution_backward_data::primitive_desc input_grad_of(const Convolution& c) {
  const auto hint = forward_of(c);
  if (!hint) return {};
  const dnnl::convolution_backward_data::desc desc(c.algorithm, c.src, c.weights, c.dst,
                                                   {c.stride, c.stride}, {c.padding, c.padding},
                                                   {c.padding, c.padding});
  return {desc, user_scratchpad(), engine(), hint, true};
}

dnnl::convolution_backward_weights::primitive_desc weight_grad_of(const Convolution& c) {
  const auto hint = forward_of(with_weights_like_images(c));
  if (!hint) return {};
  const dnnl::convolution_backward_weights::desc desc(c.algorithm, c.src, c.weights, c.dst,
                                                      {c.stride, c.stride}, {c.padding, c.padding},
                                                      {c.padding, c.padding});
  return {desc, user_scratchpad(), engine(), hint, true};
}

dnnl::matmul::primitive_desc product_of(const memory::desc& a, const memory::desc& b,
                                        const memory::desc& c) {
  return {dnnl::matmul::desc(a, b, c), user_scratchpad(), engine(), true};
}

#endif

bool is_plain(const dnnl::primitive_desc_base& desc) {
  return std::string_view(desc.impl_info_str()).find("ref") != std::string_view::npos;
}

}  // namespace ftrain::cpu
