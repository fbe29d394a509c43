// Sums over whole tensors and over columns, in f64 and always in the same order: each block writes
// the sum of its part, then the parts are added by one block for each result. Bound by the bytes
// read.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/packet.cuh"
#include "plugins/devices/cuda/ops/kernels/warp.cuh"

namespace ftrain::cuda {

// ---- sums over tensors, several in one launch: their elements fall into parts, one for each
// block.
struct SumTable {
  static constexpr int most = 160;  // what fits a launch's parameters
  const void* at[most];
  std::int64_t count[most];
  std::int32_t first_block[most + 1];
  int tensors = 0;

  __device__ int tensor_of(int block) const {
    int low = 0, high = tensors;  // first_block[low] <= block < first_block[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_block[middle] <= block ? low : high) = middle;
    }
    return low;
  }
};
inline constexpr std::int64_t sum_part = 32768;  // elements

struct Same {
  __device__ double operator()(float x) const { return x; }
};
struct Square {
  __device__ double operator()(float x) const { return double(x) * double(x); }
};

// `partial`: one for each block. `result`: where the only block of all launches writes instead.
template <class T, class F>
__global__ void sum_tensors(F f, SumTable table, double* partial, float* result) {
  const int block = static_cast<int>(blockIdx.x), t = table.tensor_of(block);
  const std::int64_t first = (block - table.first_block[t]) * sum_part;
  const std::int64_t left = table.count[t] - first;
  const std::int64_t count = left < sum_part ? left : sum_part;
  const T* const x = static_cast<const T*>(table.at[t]) + first;
  constexpr int size = packet_size<T>;
  const bool whole = reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
  const std::int64_t packets = whole ? count / size : 0;
  double sum = 0;
  for (std::int64_t p = threadIdx.x; p < packets; p += blockDim.x) {
    const Packet<T> packet = Packet<T>::load(x + p * size);
    for (const float element : packet.at) sum += f(element);
  }
  for (std::int64_t i = packets * size + threadIdx.x; i < count; i += blockDim.x) {
    sum += f(widen(x[i]));
  }
  const double total = block_sum(sum, shared_memory<double>());
  if (threadIdx.x != 0) return;
  if (result != nullptr)
    *result = static_cast<float>(total);
  else
    partial[block] = total;
}

// A block for each result: the sum of its `parts` neighbours.
template <class T>
__global__ void sum_parts(const double* partial, std::int64_t parts, T* y) {
  const double* const mine = partial + blockIdx.x * parts;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < parts; i += blockDim.x) sum += mine[i];
  const double total = block_sum(sum, shared_memory<double>());
  if (threadIdx.x == 0) y[blockIdx.x] = narrow<T>(static_cast<float>(total));
}

// ---- sums over the rows of [rows, columns]: of channels-last images too
struct ColumnPass {
  std::int64_t rows = 0, columns = 0;
  std::int64_t rows_of_block = 0;
  int lanes = 1;  // a power of two: neighbours of `width` columns a block has side by side
};

// Terms of sums: on<width>(column) is what a thread has for its columns, and its add(offset, sums)
// takes their elements from there on.
template <class T>
struct Elements {
  const T* x;

  template <int width>
  struct Lanes {
    const T* x;
    __device__ void add(std::int64_t at, double (&sums)[width]) const {
      float lanes[width];
      load_lanes<width>(x + at, lanes);
      for (int k = 0; k < width; ++k) sums[k] += lanes[k];
    }
  };
  template <int width>
  __device__ Lanes<width> on(std::int64_t) const {
    return {x};
  }
};

// prelu backward: writes dx on the way. dx may lie where dy lies.
template <class T>
struct SlopeGradient {
  const T *dy, *x;
  const float* slope;
  T* dx;

  template <int width>
  struct Lanes {
    const T *dy, *x;
    T* dx;
    float slope[width];
    __device__ void add(std::int64_t at, double (&sums)[width]) const {
      float gradient[width], input[width];
      load_lanes<width>(dy + at, gradient);
      load_lanes<width>(x + at, input);
      for (int k = 0; k < width; ++k) {
        const bool leaks = !(input[k] > 0);
        sums[k] += leaks ? double(gradient[k]) * double(input[k]) : 0.0;
        gradient[k] *= leaks ? slope[k] : 1.0f;
      }
      store_lanes<width>(dx + at, gradient);
    }
  };
  template <int width>
  __device__ Lanes<width> on(std::int64_t column) const {
    Lanes<width> lanes{dy, x, dx, {}};
    for (int k = 0; k < width; ++k) lanes.slope[k] = slope[column + k];
    return lanes;
  }
};

// Blocks: x along the columns, y along the rows. With one along the rows there are no parts: y is
// written at once.
template <int width, class Term, class Y>
__global__ void sum_columns(Term term, ColumnPass pass, double* partial, Y* y) {
  const int lane = static_cast<int>(threadIdx.x) % pass.lanes;
  const int line = static_cast<int>(threadIdx.x) / pass.lanes;
  const int lines = static_cast<int>(blockDim.x) / pass.lanes;
  const std::int64_t block_column = std::int64_t{blockIdx.x} * pass.lanes * width;
  // Not by block_column: said so, nvcc sees that a packet's stores can be one.
  const std::int64_t column = (std::int64_t{blockIdx.x} * pass.lanes + lane) * width;
  const std::int64_t first = blockIdx.y * pass.rows_of_block;
  const std::int64_t end = first + pass.rows_of_block, last = end < pass.rows ? end : pass.rows;
  double sums[width] = {};
  if (column < pass.columns) {
    const auto lanes = term.template on<width>(column);
    for (std::int64_t row = first + line; row < last; row += lines) {
      lanes.add(row * pass.columns + column, sums);
    }
  }
  double* const space = shared_memory<double>();
  for (int k = 0; k < width; ++k) space[threadIdx.x * width + k] = sums[k];
  __syncthreads();
  const int across = pass.lanes * width;
  for (int c = static_cast<int>(threadIdx.x); c < across; c += static_cast<int>(blockDim.x)) {
    if (block_column + c >= pass.columns) break;
    double total = 0;
    for (int l = 0; l < lines; ++l) total += space[l * across + c];
    if (gridDim.y == 1)
      y[block_column + c] = narrow<Y>(static_cast<float>(total));
    else
      partial[(block_column + c) * gridDim.y + blockIdx.y] = total;
  }
}

// ---- sums over samples and positions of row-major images. Blocks: x a channel, y a run of
// samples.
template <class Term, class Y>
__global__ void sum_planes(Term term, std::int64_t samples, std::int64_t channels,
                           std::int64_t positions, std::int64_t samples_of_block, double* partial,
                           Y* y) {
  const std::int64_t channel = blockIdx.x, first = blockIdx.y * samples_of_block;
  const std::int64_t end = first + samples_of_block, last = end < samples ? end : samples;
  const auto lanes = term.template on<1>(channel);
  double sums[1] = {};
  for (std::int64_t n = first; n < last; ++n) {
    const std::int64_t plane = (n * channels + channel) * positions;
    for (std::int64_t i = threadIdx.x; i < positions; i += blockDim.x) {
      lanes.add(plane + i, sums);
    }
  }
  const double total = block_sum(sums[0], shared_memory<double>());
  if (threadIdx.x != 0) return;
  if (gridDim.y == 1)
    y[channel] = narrow<Y>(static_cast<float>(total));
  else
    partial[channel * gridDim.y + blockIdx.y] = total;
}

// ---- averages over the positions of images
// Channels-last: a thread for `width` channels of a sample.
template <class T, int width>
__global__ void pool_columns(const T* x, std::int64_t samples, std::int64_t channels,
                             std::int64_t positions, float* y) {
  const std::int64_t runs = samples * channels / width;
  for (std::int64_t run = thread_number(); run < runs; run += thread_count()) {
    const std::int64_t sample = run * width / channels, channel = run * width % channels;
    const auto lanes = Elements<T>{x + sample * positions * channels}.template on<width>(channel);
    double sums[width] = {};
    for (std::int64_t p = 0; p < positions; ++p) lanes.add(p * channels + channel, sums);
    for (int k = 0; k < width; ++k) {
      y[run * width + k] = static_cast<float>(sums[k] / static_cast<double>(positions));
    }
  }
}

// Row-major: a warp for a plane.
template <class T>
__global__ void pool_planes(const T* x, std::int64_t planes, std::int64_t positions, float* y) {
  const std::int64_t warps = thread_count() / warp_size;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  for (std::int64_t plane = thread_number() / warp_size; plane < planes; plane += warps) {
    double sum = 0;
    for (std::int64_t p = lane; p < positions; p += warp_size) {
      sum += widen(x[plane * positions + p]);
    }
    const double total = warp_sum(sum);
    if (lane == 0) y[plane] = static_cast<float>(total / static_cast<double>(positions));
  }
}

// dy / positions for every position. Runs of `width` elements that share a sample, and lie along
// the channels (channels-last) or share a plane.
template <class T, int width, bool last>
__global__ void spread_over_positions(const T* dy, std::int64_t count, std::int64_t channels,
                                      std::int64_t positions, T* dx) {
  const auto share = static_cast<float>(positions);
  for (std::int64_t run = thread_number(); run * width < count; run += thread_count()) {
    const std::int64_t i = run * width;
    float lanes[width];
    if constexpr (last) {
      load_lanes<width>(dy + i / (channels * positions) * channels + i % channels, lanes);
      for (float& lane : lanes) lane /= share;
    } else {
      const float value = widen(dy[i / positions]) / share;
      for (float& lane : lanes) lane = value;
    }
    store_lanes<width>(dx + i, lanes);
  }
}

// variance + (mean - mean of all)^2
template <class T>
__global__ void moment_spread(const T* variance, const T* mean, const T* of_all, T* spread,
                              std::int64_t count) {
  for (std::int64_t i = thread_number(); i < count; i += thread_count()) {
    const double distance = double(widen(mean[i])) - double(widen(of_all[i]));
    spread[i] = narrow<T>(static_cast<float>(widen(variance[i]) + distance * distance));
  }
}

// ---- rows of [rows, columns], a block each. Read twice: the second time from the cache.
inline constexpr double smallest_norm = 1e-12;

template <class T, int width>
__global__ void normalize_rows(const T* x, std::int64_t columns, T* y, T* norms) {
  const std::int64_t start = blockIdx.x * columns;
  double squares = 0;
  for (std::int64_t i = threadIdx.x * width; i < columns; i += blockDim.x * width) {
    float lanes[width];
    load_lanes<width>(x + start + i, lanes);
    for (const float lane : lanes) squares += double(lane) * double(lane);
  }
  const double norm = sqrt(block_sum(squares, shared_memory<double>()));
  if (threadIdx.x == 0) norms[blockIdx.x] = narrow<T>(static_cast<float>(norm));
  const double inverse = 1 / (norm < smallest_norm ? smallest_norm : norm);
  for (std::int64_t i = threadIdx.x * width; i < columns; i += blockDim.x * width) {
    float lanes[width];
    load_lanes<width>(x + start + i, lanes);
    for (float& lane : lanes) lane = static_cast<float>(lane * inverse);
    store_lanes<width>(y + start + i, lanes);
  }
}

// (dy - y (y . dy)) / norm. dx may lie where dy lies.
template <class T, int width>
__global__ void normalize_rows_gradient(const T* dy, const T* y, const T* norms,
                                        std::int64_t columns, T* dx) {
  const std::int64_t start = blockIdx.x * columns;
  double products = 0;
  for (std::int64_t i = threadIdx.x * width; i < columns; i += blockDim.x * width) {
    float gradient[width], row[width];
    load_lanes<width>(dy + start + i, gradient);
    load_lanes<width>(y + start + i, row);
    for (int k = 0; k < width; ++k) products += double(gradient[k]) * double(row[k]);
  }
  const double along = block_sum(products, shared_memory<double>());
  const double norm = widen(norms[blockIdx.x]);
  const double inverse = 1 / (norm < smallest_norm ? smallest_norm : norm);
  for (std::int64_t i = threadIdx.x * width; i < columns; i += blockDim.x * width) {
    float gradient[width], row[width];
    load_lanes<width>(dy + start + i, gradient);
    load_lanes<width>(y + start + i, row);
    for (int k = 0; k < width; ++k) {
      gradient[k] = static_cast<float>((gradient[k] - row[k] * along) * inverse);
    }
    store_lanes<width>(dx + start + i, gradient);
  }
}

}  // namespace ftrain::cuda
