// Rows of class centers on their way from where they are stored to the products, and back. A warp
// has a row; bound by the bytes of the rows. For one .cu: kernels are not inline but templates.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/class_rows.cuh"

namespace ftrain::cuda {

__device__ inline void load_four(const float* from, float (&to)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}
__device__ inline void load_four(const __nv_bfloat16* from, float (&to)[4]) {
  const uint2 v = *reinterpret_cast<const uint2*>(from);
  to[0] = __builtin_bit_cast(float, v.x << 16);
  to[1] = __builtin_bit_cast(float, v.x & 0xffff0000u);
  to[2] = __builtin_bit_cast(float, v.y << 16);
  to[3] = __builtin_bit_cast(float, v.y & 0xffff0000u);
}

// 1 / |w| (`inverse`, where wanted), and the rows as f32 side by side (`copy`, where wanted). Slots
// of a sample that are not in use are 0. `packed`: the rows lie in the order of the sample. Four
// elements at a time where a row has whole fours.
template <class Stored>
__global__ void prepare_rows(std::int64_t count, std::int64_t width, bool normalized,
                             const Stored* weight, const std::int32_t* sampled, bool packed,
                             float* inverse, float* copy) {
  const std::int64_t r = warp_number();
  if (r >= count) return;
  const bool used = sampled == nullptr || sampled[r] >= 0;
  const std::int64_t row = packed || sampled == nullptr ? r : sampled[r];
  const Stored* const from = used ? weight + row * width : nullptr;
  float* const to = copy != nullptr ? copy + r * width : nullptr;
  float squares = 0;
  if (width % 4 == 0) {
    for (std::int64_t d = 4 * lane_number(); d < width; d += 4 * warp_size) {
      float w[4] = {};
      if (used) load_four(from + d, w);
      for (int k = 0; k < 4; ++k) squares += w[k] * w[k];
      if (to != nullptr) {
        *reinterpret_cast<float4*>(to + d) = make_float4(w[0], w[1], w[2], w[3]);
      }
    }
  } else {
    for (std::int64_t d = lane_number(); d < width; d += warp_size) {
      const float w = used ? static_cast<float>(from[d]) : 0.0f;
      squares += w * w;
      if (to != nullptr) to[d] = w;
    }
  }
  if (inverse == nullptr) return;
  squares = warp_sum(squares);
  if (lane_number() == 0) {
    inverse[r] = !used ? 0.0f : normalized ? inverse_of_squares(squares) : 1.0f;
  }
}

// Sampled rows to where they lie side by side, or back (`scatter`). `width`: Units of a row. Slots
// that are not in use become 0, and are not written back.
template <class Unit>
__global__ void move_rows(std::int64_t count, std::int64_t width, const std::int32_t* sampled,
                          Unit* stored, Unit* packed, bool scatter) {
  const std::int64_t r = warp_number();
  if (r >= count) return;
  const std::int64_t row = sampled[r];
  Unit* const at = packed + r * width;
  if (row < 0 && scatter) return;
  for (std::int64_t d = lane_number(); d < width; d += warp_size) {
    if (scatter)
      stored[row * width + d] = at[d];
    else
      at[d] = row < 0 ? Unit{} : stored[row * width + d];
  }
}

}  // namespace ftrain::cuda
