// Convolutions as they are written, for any shape in either order: what is left when no better
// kernel takes a node. Bound by loads that the caches serve: nothing is kept from one element to
// the next.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/lanes.cuh"

namespace ftrain::cuda {

// Where element (a, b, y, x) of a tensor of four dimensions lies.
struct Strides {
  std::int64_t outer = 0, channel = 0, row = 0, column = 0;

  __device__ std::int64_t at(std::int64_t a, std::int64_t b, std::int64_t y, std::int64_t x) const {
    return a * outer + b * channel + y * row + x * column;
  }
};

struct ConvolutionShape {
  int batch, channels, height, width;          // x
  int kernels, group_channels, rows, columns;  // weight
  int out_height, out_width;                   // y
  int stride, padding, group_kernels;
  Strides x, w, y;
  bool channels_fastest;  // how threads are numbered: as the activations lie

  __device__ int first_channel(int k) const { return k / group_kernels * group_channels; }
  // Kernel rows r (or columns) that reach input row `at` from an output row: from this one on, in
  // steps of the stride, up to the last. Their outputs lie in the image for sure.
  __device__ int first_tap(int at, int outputs) const {
    const int from = at + padding - (outputs - 1) * stride;
    return from > 0 ? from : (at + padding) % stride;
  }
  __device__ int last_tap(int at, int taps) const {
    return at + padding < taps ? at + padding : taps - 1;
  }
};

// Element `index` of a tensor [batch, channels, height, width], counted as it lies.
struct Place {
  int n, c, y, x;

  __device__ Place(std::int64_t index, int channels, int height, int width, bool channels_fastest) {
    if (channels_fastest) take(index, c, channels);
    take(index, x, width);
    take(index, y, height);
    if (!channels_fastest) take(index, c, channels);
    n = static_cast<int>(index);
  }

 private:
  __device__ static void take(std::int64_t& index, int& digit, int base) {
    digit = static_cast<int>(index % base);
    index /= base;
  }
};

// A thread an element of y.
template <class T, class P>
__global__ void convolve(ConvolutionShape c, const T* x, const P* w, T* y) {
  const std::int64_t count = std::int64_t{c.batch} * c.kernels * c.out_height * c.out_width;
  for (std::int64_t i = thread_number(); i < count; i += thread_count()) {
    const Place at(i, c.kernels, c.out_height, c.out_width, c.channels_fastest);
    const int top = at.y * c.stride - c.padding, left = at.x * c.stride - c.padding;
    const int first = c.first_channel(at.c);
    float sum = 0;
    for (int r = 0; r < c.rows; ++r) {
      if (top + r < 0 || top + r >= c.height) continue;
      for (int s = 0; s < c.columns; ++s) {
        if (left + s < 0 || left + s >= c.width) continue;
        const T* const from = x + c.x.at(at.n, first, top + r, left + s);
        const P* const weight = w + c.w.at(at.c, 0, r, s);
        for (int j = 0; j < c.group_channels; ++j) {
          sum = fmaf(widen(from[j * c.x.channel]), widen(weight[j * c.w.channel]), sum);
        }
      }
    }
    y[c.y.at(at.n, at.c, at.y, at.x)] = narrow<T>(sum);
  }
}

// A thread an element of dx.
template <class T, class P>
__global__ void convolve_back(ConvolutionShape c, const T* dy, const P* w, T* dx) {
  const std::int64_t count = std::int64_t{c.batch} * c.channels * c.height * c.width;
  for (std::int64_t i = thread_number(); i < count; i += thread_count()) {
    const Place at(i, c.channels, c.height, c.width, c.channels_fastest);
    const int first = at.c / c.group_channels * c.group_kernels;
    const int j = at.c % c.group_channels;
    const int last_r = c.last_tap(at.y, c.rows), last_s = c.last_tap(at.x, c.columns);
    float sum = 0;
    for (int r = c.first_tap(at.y, c.out_height); r <= last_r; r += c.stride) {
      for (int s = c.first_tap(at.x, c.out_width); s <= last_s; s += c.stride) {
        const T* const from = dy + c.y.at(at.n, first, (at.y + c.padding - r) / c.stride,
                                          (at.x + c.padding - s) / c.stride);
        const P* const weight = w + c.w.at(first, j, r, s);
        for (int k = 0; k < c.group_kernels; ++k) {
          sum = fmaf(widen(from[k * c.y.channel]), widen(weight[k * c.w.outer]), sum);
        }
      }
    }
    dx[c.x.at(at.n, at.c, at.y, at.x)] = narrow<T>(sum);
  }
}

// Weight `index`, numbered so that neighbouring threads read neighbouring activations.
struct WeightPlace {
  int k, j, r, s;

  __device__ WeightPlace(int index, const ConvolutionShape& c) {
    if (c.channels_fastest) {
      k = index % c.kernels;
      index /= c.kernels;
    }
    s = index % c.columns;
    index /= c.columns;
    r = index % c.rows;
    index /= c.rows;
    j = index % c.group_channels;
    if (!c.channels_fastest) k = index / c.group_channels;
  }
};

// A thread (x) a weight, over the samples of a split (y), in double: partials [splits][weights],
// which finish_pass adds up.
template <class T>
__global__ void sum_weight_gradients(ConvolutionShape c, int weights, const T* dy, const T* x,
                                     double* partials) {
  const int index = static_cast<int>(thread_number());
  if (index >= weights) return;
  const WeightPlace at(index, c);
  const int channel = c.first_channel(at.k) + at.j;
  double sum = 0;
  for (int n = static_cast<int>(blockIdx.y); n < c.batch; n += static_cast<int>(gridDim.y)) {
    for (int oy = 0; oy < c.out_height; ++oy) {
      const int iy = oy * c.stride + at.r - c.padding;
      if (iy < 0 || iy >= c.height) continue;
      const T* const gradients = dy + c.y.at(n, at.k, oy, 0);
      const T* const line = x + c.x.at(n, channel, iy, 0);
      for (int ox = 0; ox < c.out_width; ++ox) {
        const int ix = ox * c.stride + at.s - c.padding;
        if (ix < 0 || ix >= c.width) continue;
        sum += double(widen(gradients[ox * c.y.column])) * double(widen(line[ix * c.x.column]));
      }
    }
  }
  partials[std::int64_t{blockIdx.y} * weights + index] = sum;
}

// What finish_pass does with a weight's sum.
struct StoreWeight {
  static constexpr int sums = 1;
  static constexpr bool over_groups = false;
  ConvolutionShape shape;
  float* dw;

  __device__ void operator()(int index, int, const double* sum) const {
    const WeightPlace at(index, shape);
    dw[shape.w.at(at.k, at.j, at.r, at.s)] = static_cast<float>(sum[0]);
  }
  __device__ void end(int, double) const {}
};

}  // namespace ftrain::cuda
