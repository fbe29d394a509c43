// What the convolution kernels of this device read of a node.
#pragma once

#include "plugins/devices/cuda/ops/convolution_types.h"
#include "plugins/devices/cuda/ops/kernels/convolution.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {

inline Strides strides_of(const TensorType& type) {
  const Shape& s = type.shape;
  if (type.layout == channels_last) return {s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]};
  return {s[1] * s[2] * s[3], s[2] * s[3], s[3], 1};
}

inline ConvolutionShape shape_of(const ConvolutionTypes& types, const Attributes& attributes) {
  const auto whole = [](std::int64_t extent) { return static_cast<int>(extent); };
  const Shape &x = types.x.shape, &w = types.weight.shape, &y = types.y.shape;
  return {.batch = whole(x[0]),
          .channels = whole(x[1]),
          .height = whole(x[2]),
          .width = whole(x[3]),
          .kernels = whole(w[0]),
          .group_channels = whole(w[1]),
          .rows = whole(w[2]),
          .columns = whole(w[3]),
          .out_height = whole(y[2]),
          .out_width = whole(y[3]),
          .stride = whole(attributes.integer("stride")),
          .padding = whole(attributes.integer("padding")),
          .group_kernels = whole(w[0] / attributes.integer("groups")),
          .x = strides_of(types.x),
          .w = strides_of(types.weight),
          .y = strides_of(types.y),
          .channels_fastest = lies_channels_last(types.x)};
}

// f(T{}, P{}) for activations and weights, which are f32 or of the activations' type.
template <class F>
auto with_weights(const ConvolutionTypes& types, const F& f) {
  return with_storage(types.x.dtype, [&]<class T>(T) {
    return types.weight.dtype == DType::f32 ? f(T{}, float{}) : f(T{}, T{});
  });
}

// Activations in one type, weights in it or f32, all in known orders.
inline std::string refuse_convolution(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes types = convolution_types(node);
  if (!is_stored(types.x.dtype)) return "is for floats only, not " + types.x.text();
  if (types.y.dtype != types.x.dtype) {
    return "wants one type of activations, not both " + types.x.text() + " and " + types.y.text();
  }
  const bool gradient = node.op == &ops::def::conv2d_weight_grad;
  if (types.weight.dtype != DType::f32 && (gradient || types.weight.dtype != types.x.dtype)) {
    return "wants weights in f32 or as the activations, and their gradient in f32, not " +
           types.weight.text();
  }
  for (const TensorType& type : {types.x, types.weight, types.y}) {
    if (type.layout != row_major && type.layout != channels_last) {
      return "does not know " + type.text();
    }
  }
  if (types.weight.shape.elements() > 0x7fffffff) return "is for fewer weights";
  return {};
}

// Adds up partials [blocks][weights], which lie in the scratch, into dw.
void finish_weight_gradient(const ConvolutionShape& shape, int blocks, const double* partials,
                            float* dw, cudaStream_t stream);

// conv2d_weight_grad of any convolution.
std::unique_ptr<Kernel> make_direct_weight_grad(const Node& node,
                                                const KernelEnvironment& environment);

void add_direct_convolutions(KernelList& list);

}  // namespace ftrain::cuda
