// The convolution kernels' view of a node, shared with the layouts pass.
#pragma once

#include <optional>
#include <string>

#include "ftrain/ops.h"
#include "plugins/devices/cpu/onednn/onednn.h"

namespace ftrain::cpu {

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
