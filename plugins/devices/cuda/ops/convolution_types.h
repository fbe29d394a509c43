// The operands of conv2d or one of its gradients, by what they are of the convolution.
#pragma once

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/layout.h"

namespace ftrain::cuda {

struct ConvolutionTypes {
  TensorType x, w, y;

  explicit ConvolutionTypes(const Node& node) {
    if (node.op->name == "conv2d_input_grad") {
      x = node.outputs[0], w = node.input(1), y = node.input(0);
    } else if (node.op->name == "conv2d_weight_grad") {
      x = node.input(1), w = node.outputs[0], y = node.input(0);
    } else {
      x = node.input(0), w = node.input(1), y = node.outputs[0];
    }
  }
};

// A single position has both orders.
inline bool lies_channels_last(const TensorType& type) {
  return type.layout == channels_last || type.shape[2] * type.shape[3] == 1;
}

}  // namespace ftrain::cuda
