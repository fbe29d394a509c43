// What the first walk over class centers does beside the product and the margin, and what stands
// around it. A row of class centers is a warp's; all are bound by the bytes of the tile, which lies
// in the second cache. For one .cu: kernels are not inline.
#pragma once

#include <cstdint>
#include <limits>

#include "ftrain/model/margin_head.h"
#include "plugins/devices/cuda/ops/kernels/class_rows.cuh"

namespace ftrain::cuda {

inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// ---- samples
// A warp has a sample: its cosine with its own class, or 0 where that is another rank's.
template <class Stored>
__global__ void target_cosines(std::int64_t batch, std::int64_t width, std::int64_t first_class,
                               std::int64_t classes, bool normalized, const float* features,
                               const std::int64_t* labels, const Stored* weight, float* cosines) {
  const std::int64_t b = warp_number();
  if (b >= batch) return;
  const std::int64_t row = labels[b] - first_class;
  const bool here = row >= 0 && row < classes;
  float product = 0, squares = 0;
  if (here) {
    for (std::int64_t d = lane_number(); d < width; d += warp_size) {
      const auto w = static_cast<float>(weight[row * width + d]);
      product += features[b * width + d] * w;
      squares += w * w;
    }
  }
  product = warp_sum(product);
  squares = warp_sum(squares);
  if (lane_number() == 0) {
    cosines[b] = here && normalized ? product * inverse_of_squares(squares) : product;
  }
}

// What margins want to know of samples. `terms`: [count, batch].
__global__ void describe_samples(std::int64_t batch, const float* target, const float* norms,
                                 std::int64_t count, const float* terms,
                                 MarginRow<float>* samples) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= batch) return;
  MarginRow<float> sample{target[b], norms[b]};
  for (int i = 0; i < most_margin_terms; ++i) {
    if (i < count) sample.term[i] = terms[i * batch + b];
  }
  samples[b] = sample;
}

// The walked position of each sample's own class, or -1 when it is not among them.
__global__ void own_positions(std::int64_t batch, std::int64_t first_class, std::int64_t classes,
                              std::int64_t walked, const std::int64_t* labels,
                              const std::int32_t* sampled, std::int32_t* own) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= batch) return;
  const std::int64_t row = labels[b] - first_class;
  std::int64_t position = row >= 0 && row < classes ? row : -1;
  if (sampled != nullptr && position >= 0) {
    position = position_in(sampled, walked, row);
    if (position == walked || sampled[position] != row) position = -1;
  }
  own[b] = static_cast<std::int32_t>(position);
}

// ---- statistics
__global__ void start_statistics(std::int64_t pairs, float* running) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pairs) return;
  running[2 * i] = minus_infinity;
  running[2 * i + 1] = 0;
}

// A block has a sample: one pair out of those of all slices.
__global__ void combine_statistics(std::int64_t slices, std::int64_t batch, const float* running,
                                   float* stats) {
  auto* const space = shared_memory<float>();
  const std::int64_t b = blockIdx.x;
  float largest = minus_infinity, sum = 0;
  for (std::int64_t s = threadIdx.x; s < slices; s += blockDim.x) {
    const float of_slice = running[2 * (s * batch + b)];
    if (of_slice > largest) largest = of_slice;
  }
  largest = block_max(largest, minus_infinity, space);
  for (std::int64_t s = threadIdx.x; s < slices; s += blockDim.x) {
    const float* const pair = running + 2 * (s * batch + b);
    // A slice without any class has (-inf, 0). NaN goes on.
    if (pair[1] != 0.0f) sum += pair[1] * expf(pair[0] - largest);
  }
  sum = block_sum(sum, space);
  if (threadIdx.x != 0) return;
  stats[2 * b] = largest;
  stats[2 * b + 1] = sum;
}

// The pairs of all ranks become the logarithms of the denominators and the loss. One block.
__global__ void combine_ranks(std::int64_t ranks, std::int64_t batch, const float* stats,
                              const Dual<float>* target, float* loss, float* log_sums) {
  auto* const space = shared_memory<double>();
  double total = 0;
  for (std::int64_t b = threadIdx.x; b < batch; b += blockDim.x) {
    float largest = minus_infinity, sum = 0;
    for (std::int64_t r = 0; r < ranks; ++r) {
      const float of_rank = stats[2 * (r * batch + b)];
      if (of_rank > largest) largest = of_rank;
    }
    for (std::int64_t r = 0; r < ranks; ++r) {
      const float* const pair = stats + 2 * (r * batch + b);
      if (pair[1] != 0.0f) sum += pair[1] * expf(pair[0] - largest);
    }
    const float log_sum = largest + logf(sum);
    log_sums[b] = log_sum;
    total += static_cast<double>(log_sum) - static_cast<double>(target[b].value);
  }
  total = block_sum(total, space);
  if (threadIdx.x == 0) *loss = static_cast<float>(total / static_cast<double>(batch));
}

}  // namespace ftrain::cuda
