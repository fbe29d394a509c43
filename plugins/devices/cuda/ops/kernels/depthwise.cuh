// Convolutions with `group` (1 or 2) channels a group, as many kernels as channels, channels-last.
//
// A thread takes four neighbouring channels, whole groups, of a strip of neighbouring outputs, so
// that an element of x is read from memory once, from the caches for each row of the kernel, and
// kept in registers along the strip. Weights lie in shared memory as [taps][group][channels of the
// block]. All are bound by the bytes of x and y; a 3x3 kernel's nine multiplications and additions
// an element take about a third of that time in bf16.
#pragma once

#include "plugins/devices/cuda/ops/kernels/convolution.cuh"
#include "plugins/devices/cuda/ops/kernels/shared.cuh"

namespace ftrain::cuda {

inline constexpr int narrow_width = 4;  // channels of a thread
using NarrowSums = float[narrow_width];

// Threads of a block: `lanes` side by side over channels, the others over positions.
struct NarrowThread {
  int first = 0;  // channel
  int lane = 0;
  bool active = false;
  std::int64_t piece, pieces;  // of positions: this thread's first, and how many go on at a time

  __device__ NarrowThread(int lanes, int channels) : lane(static_cast<int>(threadIdx.x) % lanes) {
    const int slices = static_cast<int>(blockDim.x) / lanes;
    first = (static_cast<int>(blockIdx.x) * lanes + lane) * narrow_width;
    active = first < channels;
    piece = std::int64_t{blockIdx.y} * slices + static_cast<int>(threadIdx.x) / lanes;
    pieces = std::int64_t{gridDim.y} * slices;
  }
};

// Copies the weights of the block's channels. Turned: those of the convolution that makes dx out of
// dy at stride 1, upside down and with inputs and outputs exchanged.
template <int group>
__device__ void stage_weights(const ConvolutionShape& c, int lanes, bool turned, const float* w,
                              float* staged) {
  const int width = lanes * narrow_width, taps = c.rows * c.columns;
  const int base = static_cast<int>(blockIdx.x) * width;
  for (int i = static_cast<int>(threadIdx.x); i < taps * group * width;
       i += static_cast<int>(blockDim.x)) {
    const int channel = base + i % width, j = i / width % group, tap = i / width / group;
    const int within = turned ? taps - 1 - tap : tap;
    const int k = turned ? channel / group * group + j : channel;
    const int of = turned ? channel % group : j;
    staged[i] =
        channel < c.kernels ? w[c.w.at(k, of, within / c.columns, within % c.columns)] : 0.0f;
  }
  __syncthreads();
}

// sums += the tap's weights times x, group by group. `weights`: [group][width].
template <int group>
__device__ void multiply_tap(NarrowSums& sums, const float* weights, int width,
                             const NarrowSums& x) {
#pragma unroll
  for (int j = 0; j < group; ++j) {
    const float4 w = *reinterpret_cast<const float4*>(weights + j * width);
    sums[0] = fmaf(w.x, x[j], sums[0]);
    sums[1] = fmaf(w.y, x[group == 1 ? 1 : j], sums[1]);
    sums[2] = fmaf(w.z, x[2 + j], sums[2]);
    sums[3] = fmaf(w.w, x[group == 1 ? 3 : 2 + j], sums[3]);
  }
}

// A strip of outputs of one row.
struct Strip {
  int n, y, x;

  __device__ Strip(std::int64_t index, int height, int width, int length) {
    const int of_row = (width + length - 1) / length;
    x = static_cast<int>(index % of_row) * length;
    index /= of_row;
    y = static_cast<int>(index % height);
    n = static_cast<int>(index / height);
  }
};

// Square kernels of `size`. `turned`: c is the convolution that makes dx out of dy.
template <class T, int group, int size, int stride, int length>
__global__ void __launch_bounds__(256)
    convolve_strips(ConvolutionShape c, int lanes, bool turned, const T* x, const float* w, T* y) {
  constexpr int span = (length - 1) * stride + size;
  using Vector = Lanes<T, narrow_width>;
  float* const staged = shared_memory<float>();
  stage_weights<group>(c, lanes, turned, w, staged);
  const NarrowThread me(lanes, c.kernels);
  if (!me.active) return;
  const int width = lanes * narrow_width;
  const float* const weights = staged + me.lane * narrow_width;
  const std::int64_t count =
      std::int64_t{c.batch} * c.out_height * ((c.out_width + length - 1) / length);
  for (std::int64_t i = me.piece; i < count; i += me.pieces) {
    const Strip at(i, c.out_height, c.out_width, length);
    const int left = at.x * stride - c.padding;
    Vector sums[length];
    for (Vector& sum : sums) sum = Vector::zero();
#pragma unroll
    for (int r = 0; r < size; ++r) {
      const int row = at.y * stride - c.padding + r;
      if (row < 0 || row >= c.height) continue;
      const T* const line = x + c.x.at(at.n, me.first, row, left);
      typename Vector::Bits bits[span];
#pragma unroll
      for (int s = 0; s < span; ++s) {
        const bool inside = left + s >= 0 && left + s < c.width;
        bits[s] = Vector::fetch_if(inside, line + s * c.x.column);
      }
      Vector of[span];
#pragma unroll
      for (int s = 0; s < span; ++s) of[s] = Vector(bits[s]);
#pragma unroll
      for (int s = 0; s < size; ++s) {
#pragma unroll
        for (int t = 0; t < length; ++t) {
          multiply_tap<group>(sums[t].at, weights + (r * size + s) * group * width, width,
                              of[t * stride + s].at);
        }
      }
    }
    T* const out = y + c.y.at(at.n, me.first, at.y, at.x);
    for (int t = 0; t < length; ++t) {
      if (at.x + t < c.out_width) sums[t].store(out + t * c.y.column);
    }
  }
}

// Kernels of any size: one output a thread.
template <class T, int group>
__global__ void __launch_bounds__(256)
    convolve_windows(ConvolutionShape c, int lanes, const T* x, const float* w, T* y) {
  using Vector = Lanes<T, narrow_width>;
  float* const staged = shared_memory<float>();
  stage_weights<group>(c, lanes, false, w, staged);
  const NarrowThread me(lanes, c.kernels);
  if (!me.active) return;
  const int width = lanes * narrow_width;
  const std::int64_t count = std::int64_t{c.batch} * c.out_height * c.out_width;
  for (std::int64_t i = me.piece; i < count; i += me.pieces) {
    const Strip at(i, c.out_height, c.out_width, 1);
    const int top = at.y * c.stride - c.padding, left = at.x * c.stride - c.padding;
    Vector sums = Vector::zero();
    for (int r = 0; r < c.rows; ++r) {
      if (top + r < 0 || top + r >= c.height) continue;
      const T* const line = x + c.x.at(at.n, me.first, top + r, left);
      const float* const weights = staged + r * c.columns * group * width + me.lane * narrow_width;
#pragma unroll 4
      for (int s = 0; s < c.columns; ++s) {
        if (left + s < 0 || left + s >= c.width) continue;
        multiply_tap<group>(sums.at, weights + s * group * width, width,
                            Vector::load(line + s * c.x.column).at);
      }
    }
    sums.store(y + c.y.at(at.n, me.first, at.y, at.x));
  }
}

// dx of any stride: one element a thread, over the outputs that it went into. Bound by the bytes of
// dx and dy.
template <class T, int group>
__global__ void __launch_bounds__(256)
    convolve_windows_back(ConvolutionShape c, int lanes, const T* dy, const float* w, T* dx) {
  using Vector = Lanes<T, narrow_width>;
  float* const staged = shared_memory<float>();
  stage_weights<group>(c, lanes, true, w, staged);
  const NarrowThread me(lanes, c.channels);
  if (!me.active) return;
  const int width = lanes * narrow_width, taps = c.rows * c.columns;
  const std::int64_t count = std::int64_t{c.batch} * c.height * c.width;
  for (std::int64_t i = me.piece; i < count; i += me.pieces) {
    const Strip at(i, c.height, c.width, 1);
    const int last_r = c.last_tap(at.y, c.rows), last_s = c.last_tap(at.x, c.columns);
    Vector sums = Vector::zero();
    for (int r = c.first_tap(at.y, c.out_height); r <= last_r; r += c.stride) {
      for (int s = c.first_tap(at.x, c.out_width); s <= last_s; s += c.stride) {
        const int tap = taps - 1 - (r * c.columns + s);
        const T* const from = dy + c.y.at(at.n, me.first, (at.y + c.padding - r) / c.stride,
                                          (at.x + c.padding - s) / c.stride);
        multiply_tap<group>(sums.at, staged + tap * group * width + me.lane * narrow_width, width,
                            Vector::load(from).at);
      }
    }
    sums.store(dx + c.x.at(at.n, me.first, at.y, at.x));
  }
}

// Sums of the weights' gradients over the block's strips: partials [blocks][weights], in the order
// of StoreWeight's numbers, which finish_pass adds up. Bound by the bytes of dy and x.
template <class T, int group, int size, int stride, int length>
__global__ void __launch_bounds__(256)
    sum_strip_gradients(ConvolutionShape c, int lanes, const T* dy, const T* x, double* partials) {
  constexpr int span = (length - 1) * stride + size, taps = size * size;
  using Vector = Lanes<T, narrow_width>;
  const NarrowThread me(lanes, c.kernels);
  NarrowSums sums[taps][group] = {};
  const std::int64_t count =
      std::int64_t{c.batch} * c.out_height * ((c.out_width + length - 1) / length);
  for (std::int64_t i = me.active ? me.piece : count; i < count; i += me.pieces) {
    const Strip at(i, c.out_height, c.out_width, length);
    const int left = at.x * stride - c.padding;
    const T* const from = dy + c.y.at(at.n, me.first, at.y, at.x);
    typename Vector::Bits bits_of[length];
#pragma unroll
    for (int t = 0; t < length; ++t) {
      bits_of[t] = Vector::fetch_if(at.x + t < c.out_width, from + t * c.y.column);
    }
    Vector gradients[length];
#pragma unroll
    for (int t = 0; t < length; ++t) gradients[t] = Vector(bits_of[t]);
#pragma unroll
    for (int r = 0; r < size; ++r) {
      const int row = at.y * stride - c.padding + r;
      if (row < 0 || row >= c.height) continue;
      const T* const line = x + c.x.at(at.n, me.first, row, left);
      typename Vector::Bits bits[span];
#pragma unroll
      for (int s = 0; s < span; ++s) {
        const bool inside = left + s >= 0 && left + s < c.width;
        bits[s] = Vector::fetch_if(inside, line + s * c.x.column);
      }
      Vector of[span];
#pragma unroll
      for (int s = 0; s < span; ++s) of[s] = Vector(bits[s]);
#pragma unroll
      for (int s = 0; s < size; ++s) {
#pragma unroll
        for (int t = 0; t < length; ++t) {
#pragma unroll
          for (int j = 0; j < group; ++j) {
#pragma unroll
            for (int v = 0; v < narrow_width; ++v) {
              float& sum = sums[r * size + s][j][v];
              sum = fmaf(gradients[t].at[v], of[t * stride + s].at[v / group * group + j], sum);
            }
          }
        }
      }
    }
  }
  // Across the block, a tap at a time.
  float* const of_threads = shared_memory<float>();  // [narrow_width][threads]
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int weights = taps * group * c.kernels;
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) {
#pragma unroll
    for (int j = 0; j < group; ++j) {
      for (int v = 0; v < narrow_width; ++v) of_threads[v * threads + thread] = sums[tap][j][v];
      __syncthreads();
      for (int i = thread; i < narrow_width * lanes; i += threads) {
        const int v = i / lanes, lane = i % lanes;
        const int channel = (static_cast<int>(blockIdx.x) * lanes + lane) * narrow_width + v;
        double total = 0;
        for (int t = lane; t < threads; t += lanes) total += double(of_threads[v * threads + t]);
        if (channel < c.kernels) {
          const int index = (j * taps + tap) * c.kernels + channel;
          partials[std::int64_t{blockIdx.y} * weights + index] = total;
        }
      }
      __syncthreads();
    }
  }
}

}  // namespace ftrain::cuda
