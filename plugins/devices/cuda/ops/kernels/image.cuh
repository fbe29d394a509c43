// Images coming in: u8 [N, H, W, 3] to floats in either order, some of them flipped.
#pragma once

#include <cstdint>

#include "ftrain/ops/random.h"
#include "plugins/devices/cuda/ops/kernels/packet.cuh"

namespace ftrain::cuda {

struct ImageTransform {
  std::int64_t batch, height, width;
  std::int64_t first_sample;
  std::uint64_t key;
  float mean, scale, flip;

  __device__ float operator()(std::uint8_t pixel) const {
    return (static_cast<float>(pixel) - mean) * scale;
  }
};

// Four neighbours of one colour.
template <class T>
__device__ void store_four(T* to, const float (&four)[4]) {
  if constexpr (sizeof(T) == sizeof(float)) {
    *reinterpret_cast<float4*>(to) = make_float4(four[0], four[1], four[2], four[3]);
  } else {
    *reinterpret_cast<uint2*>(to) =
        make_uint2(pack<T>(four[0], four[1]), pack<T>(four[2], four[3]));
  }
}

// One grid row (y) a sample; threads take runs of `pixels` (4, or 1 where the width or an address
// is odd) along the rows of the output. Bound by the bytes written.
template <class T, bool channels_last, int pixels>
__global__ void normalize_images(ImageTransform of, const std::uint8_t* images,
                                 const std::int64_t* step, T* y) {
  const std::int64_t plane = of.height * of.width, runs = plane / pixels;
  for (std::int64_t n = blockIdx.y; n < of.batch; n += gridDim.y) {
    const bool flipped = of.flip > 0 && image_flips(of.key, *step, of.first_sample + n, of.flip);
    const std::uint8_t* const image = images + n * plane * 3;
    T* const out = y + n * plane * 3;
    for (std::int64_t run = thread_number(); run < runs; run += thread_count()) {
      const std::int64_t first = run * pixels, row = first / of.width, column = first % of.width;
      const std::int64_t from = row * of.width + (flipped ? of.width - pixels - column : column);
      // Pixels of the run as they lie in the image, colours side by side.
      std::uint8_t bytes[3 * pixels];
      if constexpr (pixels == 4) {
        for (int k = 0; k < 3; ++k) {
          const std::uint32_t word = reinterpret_cast<const std::uint32_t*>(image + 3 * from)[k];
          for (int b = 0; b < 4; ++b) bytes[4 * k + b] = static_cast<std::uint8_t>(word >> 8 * b);
        }
      } else {
        for (int k = 0; k < 3; ++k) bytes[k] = image[3 * from + k];
      }
      float values[3][pixels];
      for (int c = 0; c < 3; ++c) {
        for (int p = 0; p < pixels; ++p) {
          values[c][p] = of(flipped ? bytes[3 * (pixels - 1 - p) + c] : bytes[3 * p + c]);
        }
      }
      if constexpr (pixels == 1) {
        for (int c = 0; c < 3; ++c) {
          out[channels_last ? 3 * first + c : c * plane + first] = narrow<T>(values[c][0]);
        }
      } else if constexpr (channels_last) {
        for (int k = 0; k < 3; ++k) {
          float four[4];
          for (int b = 0; b < 4; ++b) four[b] = values[(4 * k + b) % 3][(4 * k + b) / 3];
          store_four(out + 3 * first + 4 * k, four);
        }
      } else {
        for (int c = 0; c < 3; ++c) store_four(out + c * plane + first, values[c]);
      }
    }
  }
}

}  // namespace ftrain::cuda
