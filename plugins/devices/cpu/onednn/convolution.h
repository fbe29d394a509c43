// The convolution kernels' view of a node, shared with the layouts pass.
#pragma once

#include <optional>
#include <string>

#include "ftrain/graph/graph.h"
#include "plugins/devices/cpu/onednn/onednn.h"

namespace ftrain::cpu {

// The three tensors of a convolution, whichever of them a node makes.
struct ConvolutionTypes {
  TensorType x, weight, y;
  std::int64_t stride = 1, padding = 0, groups = 1;

  bool depthwise() const { return groups > 1 && weight.shape[1] == 1 && groups == weight.shape[0]; }
};

// Of a conv2d, conv2d_folded, conv2d_input_grad or conv2d_weight_grad node.
ConvolutionTypes convolution_types(const Node& node);

// Is it a depthwise convolution whose kernel is as large as the image? And how its weight's
// gradient is then ordered.
bool covers_image(const ConvolutionTypes& types);
std::string whole_depthwise_layout(const ConvolutionTypes& types);

// How the weight of a convolution is best kept, given x and y: as oneDNN's forward convolution
// would like it (for bf16 images as its gradient is made). A layout word, or "" when that order
// pads or has no name.
std::string preferred_weight_layout(const ConvolutionTypes& types);
// The same for the order in which the weight's gradient is made.
std::string made_weight_layout(const ConvolutionTypes& types);

}  // namespace ftrain::cpu
