// What the oneDNN kernels share: the engine, tensor descriptions, and the one place that differs
// between oneDNN 2.x (operation descriptors) and 3.x (primitive descriptors alone).
//
// Threads: the engine is shared and safe; oneDNN's primitives keep the OpenMP thread count of the
// thread that creates them.
#pragma once

#include <optional>
#include <string>

#include <oneapi/dnnl/dnnl.hpp>

#include "ftrain/base/shape.h"
#include "ftrain/graph/attributes.h"

namespace ftrain::cpu {

const dnnl::engine& engine();

// What oneDNN calls an element type that its kernels here take: f32 or bf16.
std::optional<dnnl::memory::data_type> data_type_of(DType dtype);
// The description of a tensor of f32 or bf16 with its physical order; nothing when oneDNN knows no
// such order.
std::optional<dnnl::memory::desc> describe(const TensorType& type);
dnnl::memory::desc describe_any(const dnnl::memory::dims& dims, dnnl::memory::data_type data);
// The layout word of a 4-D description of f32: "" for row-major, nothing when it pads or has no
// name.
std::optional<std::string> layout_word(const dnnl::memory::desc& desc, const Shape& shape);

// Copies between row-major and the type's own layout. The types are as describe() takes them where
// they have a layout.
void copy_to_row_major(const TensorType& type, const void* from, void* row_major);
void copy_from_row_major(const TensorType& type, const void* row_major, void* to);

// A convolution as oneDNN sees it. Grouped weights are 5-D: [G, K/G, C/G, R, S]. Of bf16 images the
// weights are bf16 and their gradient is f32.
struct Convolution {
  dnnl::memory::desc src, weights, dst;
  dnnl::memory::dim stride = 1, padding = 0;
  dnnl::algorithm algorithm = dnnl::algorithm::convolution_direct;
};

// An empty descriptor (operator bool is false) when oneDNN has no implementation.
dnnl::convolution_forward::primitive_desc forward_of(const Convolution& c);
// With a bias and, behind it, `steps`; for evaluation.
dnnl::convolution_forward::primitive_desc folded_forward_of(const Convolution& c,
                                                            const dnnl::memory::desc& bias,
                                                            const dnnl::post_ops& steps);
dnnl::convolution_backward_data::primitive_desc input_grad_of(const Convolution& c);
dnnl::convolution_backward_weights::primitive_desc weight_grad_of(const Convolution& c);
dnnl::matmul::primitive_desc product_of(const dnnl::memory::desc& a, const dnnl::memory::desc& b,
                                        const dnnl::memory::desc& c);

// Does oneDNN fall back to its plain loops?
bool is_plain(const dnnl::primitive_desc_base& desc);

}  // namespace ftrain::cpu
