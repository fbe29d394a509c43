// What the second walk over class centers does beside the product, the margin and the update. Bound
// by the bytes of the tile, which lies in the second cache. For one .cu: kernels are not inline.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/class_rows.cuh"

namespace ftrain::cuda {

// A block has a row: back through its normalisation, and what an earlier part of the step left.
// `gradient` and `earlier` may be where the result goes.
__global__ void finish_rows(std::int64_t width, bool normalized, const float* weight,
                            const std::int32_t* sampled, const float* inverse, const float* along,
                            const float* gradient, const float* earlier, float* result) {
  const std::int64_t r = blockIdx.x;
  const bool used = sampled == nullptr || sampled[r] >= 0;
  const float factor = normalized && used ? along[r] * inverse[r] * inverse[r] : 0.0f;
  for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x) {
    const std::int64_t i = r * width + d;
    float value = 0;
    if (used) {
      value = gradient[i];
      if (normalized) value -= factor * weight[i];
      if (earlier != nullptr) value += earlier[i];
    }
    result[i] = value;
  }
}

// The rows [first, first + count) but for those that were sampled, which become -1.
__global__ void rows_not_sampled(std::int64_t first, std::int64_t count, std::int64_t walked,
                                 const std::int32_t* sampled, std::int32_t* rest) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const std::int64_t row = first + i, position = position_in(sampled, walked, row);
  const bool there = position < walked && sampled[position] == row;
  rest[i] = there ? -1 : static_cast<std::int32_t>(row);
}

// Gradients of features: those of all splits added up in order; 0 where there are none.
__global__ void add_splits(std::int64_t count, std::int64_t splits, const float* parts,
                           float* sum) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float value = 0;
  for (std::int64_t s = 0; s < splits; ++s) value += parts[s * count + i];
  sum[i] = value;
}

}  // namespace ftrain::cuda
