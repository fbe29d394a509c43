// What the kernels of narrow 3x3 convolutions share: the shape of a node's convolution, and its
// weight as the Highway functions read it.
#pragma once

#include <string>

#include "ftrain/graph/graph.h"
#include "plugins/devices/cpu/simd/depthwise_tiles.h"

namespace ftrain::cpu {

// Why the three tensors are not of such a convolution, on channel blocks.
std::string refuse_depthwise(const TensorType& x, const TensorType& weight, const TensorType& y,
                             std::int64_t stride, std::int64_t padding);

DepthwiseShape depthwise_shape(const TensorType& x, const TensorType& weight, const TensorType& y,
                               std::int64_t stride);

// The weight [C, 1 or 2, 3, 3] to [C / B][weight_rows][B]; `turned`: for the gradient of x.
void arrange_depthwise_weight(const DepthwiseShape& shape, const TensorType& weight,
                              const float* from, bool turned, float* to);
// Sums of all blocks, the rows of a block `stride` apart from a block's first lane on, as the
// weight's gradient.
void store_depthwise_gradient(const DepthwiseShape& shape, const TensorType& weight,
                              const double* sums, std::int64_t stride, float* to);

}  // namespace ftrain::cpu
