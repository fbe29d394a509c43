// What the kernels of both walks over class centers share.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/warp.cuh"

namespace ftrain::cuda {

// The warp's number in a grid of one dimension.
__device__ inline std::int64_t warp_number() {
  return (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warp_size;
}
__device__ inline int lane_number() {
  return static_cast<int>(threadIdx.x) % warp_size;
}

__device__ inline float inverse_of_squares(float squares) {
  const float length = sqrtf(squares);
  return 1.0f / (length < 1e-12f ? 1e-12f : length);  // NaN goes on
}

// The first position of a sample of classes whose row is not below `row`. Slots not in use, -1,
// stand at the end: as unsigned numbers they are above all rows.
__device__ inline std::int64_t position_in(const std::int32_t* sampled, std::int64_t walked,
                                           std::int64_t row) {
  std::int64_t low = 0, high = walked;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (static_cast<std::uint32_t>(sampled[middle]) < static_cast<std::uint32_t>(row))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace ftrain::cuda
