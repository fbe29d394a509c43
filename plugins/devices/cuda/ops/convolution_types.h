// How the images of convolutions lie on the device.
#pragma once

#include "ftrain/ops.h"
#include "plugins/devices/cuda/device/layout.h"

namespace ftrain::cuda {

// A single position has both orders.
inline bool lies_channels_last(const TensorType& type) {
  return type.layout == channels_last || type.shape[2] * type.shape[3] == 1;
}

}  // namespace ftrain::cuda
