// Convolutions and their gradients.
//
// Images are N, C, H, W; everything is floating (f32, or f64 for gradient checks) unless said.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {

// The tensors of a convolution or of one of its gradients, by what they are of the convolution.
struct ConvolutionTypes {
  TensorType x, weight, y;
  std::int64_t stride = 1, padding = 0, groups = 1;

  bool depthwise() const { return groups > 1 && weight.shape[1] == 1 && groups == weight.shape[0]; }
};
// Of a node whose op has ConvolutionRoles.
FTRAIN_API ConvolutionTypes convolution_types(const Node& node);

}  // namespace ftrain

namespace ftrain::ops {

struct Conv2d {
  std::int64_t stride = 1, padding = 0, groups = 1;
};
// x [N, C, H, W], weight [K, C/groups, R, S] -> [N, K, (H + 2p - R)/stride + 1, ...]. No bias.
FTRAIN_API Value conv2d(Value x, Value weight, const Conv2d& options = {});

// ---- gradients
// Gradients of conv2d(x, weight): of x, whose shape is [N, C, H, W] = `shape`; and of weight.
FTRAIN_API Value conv2d_input_grad(Value dy, Value weight, const Shape& shape,
                                   const Conv2d& options);
FTRAIN_API Value conv2d_weight_grad(Value dy, Value x, const Shape& weight, const Conv2d& options);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef conv2d, conv2d_input_grad, conv2d_weight_grad;
}  // namespace def

}  // namespace ftrain::ops
