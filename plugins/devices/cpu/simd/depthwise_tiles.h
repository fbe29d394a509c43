// The Highway functions of 3x3 convolutions (padding 1) whose groups are one channel (depthwise) or
// two: what each is handed and how it is found.
//
// Each works on one tile, an image of one channel block, and knows no threads. It walks the image
// row by row and keeps a few rows of f32 with a border of zeros, so that edges and storage types
// cost nothing in the inner loops, and so that what lies before the convolution can be computed as
// a row is taken in, and never is in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ftrain::cpu {

inline constexpr std::int64_t depthwise_taps = 9;

// Rows as they lie; through a batch norm and its PReLU: prelu((x - mean) factor + beta); or a
// gradient, back through the two, whose input is `at`:
//   dz factor - (at - mean) along - offset, with dz = x through the PReLU's gradient.
enum class Through { nothing, norm_prelu, norm_prelu_grad };

struct DepthwiseRows {
  const void *x = nullptr, *at = nullptr;
  const float *mean = nullptr, *factor = nullptr, *beta = nullptr, *slope = nullptr;  // [block]
  const float *along = nullptr, *offset = nullptr;
  Through through = Through::nothing;
};

// Extents of x and of y; stride 2 is for single channels alone.
struct DepthwiseShape {
  std::int64_t height = 0, width = 0, out_height = 0, out_width = 0, stride = 1, block = 0;
  bool pairs = false;  // groups of two channels
  bool bf16 = false;   // what is stored; all arithmetic is f32

  // Rows of `block` weights: the lane's own taps, then with pairs those across, from the lane to
  // the other of its pair.
  std::int64_t weight_rows() const { return depthwise_taps * (pairs ? 2 : 1); }
  // Floats of scratch for one thread, 64-byte aligned.
  std::size_t scratch_floats() const;
};

struct DepthwiseTile {
  DepthwiseShape shape;
  DepthwiseRows x, dy;
  const float* weight = nullptr;  // [weight_rows][block]; for dx with the taps turned around
  void *y = nullptr, *dx = nullptr;
  // For dw: rows of block lanes `sums_stride` apart, added to; lanes of x, so a sum across is of
  // the weight from this lane to the other.
  double* sums = nullptr;
  std::int64_t sums_stride = 0;
  float* scratch = nullptr;
};

struct DepthwiseFunctions {
  void (*forward)(const DepthwiseTile&);   // x -> y
  void (*backward)(const DepthwiseTile&);  // dy -> dx; dy, x -> sums; either may be nullptr
};
DepthwiseFunctions depthwise_functions(const std::string& isa);

}  // namespace ftrain::cpu
