// Passes over activations, channel by channel: a map, sums, or both (batch_norm.cuh).
//
// All are bound by bytes: every tensor of a pass is read or written once, 16 bytes a thread, with
// several loads under way. Sums go from the thread (f32) to the block and from there, in double, to
// `partials` [sums][groups][blocks][C], which a second launch adds up in the blocks' order: the
// same bits from run to run.
#pragma once

#include "plugins/devices/cuda/ops/kernels/batch_norm.cuh"
#include "plugins/devices/cuda/ops/kernels/lanes.cuh"
#include "plugins/devices/cuda/ops/kernels/shared.cuh"

namespace ftrain::cuda::norms {

// Where the tensors of a pass lie: the map's inputs, then the term's.
template <class T, int inputs>
struct Tensors {
  const T* from[inputs];
  T* to = nullptr;
};

struct PassArguments {
  PerChannel map, term;
  double* partials = nullptr;
};

// One channel of a pass in one thread.
template <class Map, class Term>
struct Channel {
  static constexpr int inputs = Map::inputs + Term::inputs;
  Map map;
  Term term;

  __device__ void begin(const PassArguments& of, int row, int channel) {
    map.begin(of.map, row, channel);
    term.begin(of.term, row, channel);
  }
};

// The map's result as whoever reads it from memory finds it.
template <class T, class Map>
__device__ float as_found(float x) {
  return Map::stores ? widen(narrow<T>(x)) : x;
}

// Adds up the values of the threads that share a lane: put(k, lane, v, total) is called once for
// each. `value(k, v)`: this thread's k-th sum for its v-th channel.
template <int sums, int width, class Value, class Put>
__device__ void add_up_columns(int lanes, const Value& value, const Put& put) {
  double* const of_threads = shared_memory<double>();  // [width][threads]
  const int threads = static_cast<int>(blockDim.x), me = static_cast<int>(threadIdx.x);
  for (int k = 0; k < sums; ++k) {
    for (int v = 0; v < width; ++v) of_threads[v * threads + me] = value(k, v);
    __syncthreads();
    for (int j = me; j < width * lanes; j += threads) {
      const int v = j / lanes, lane = j % lanes;
      double total = 0;
      for (int t = lane; t < threads; t += lanes) total += of_threads[v * threads + t];
      put(k, lane, v, total);
    }
    __syncthreads();
  }
}

// Rows of C neighbouring channels: channels-last images, and vectors [N, C].
struct Columns {
  std::int64_t rows;  // of a group
  int channels;
  int lanes;       // threads side by side, each with `width` channels
  bool backwards;  // from the last row to the first
};

// blocks: x runs over channels, y over rows, z over groups. threads: a multiple of lanes.
template <class T, int width, class Map, class Term>
__global__ void __launch_bounds__(256)
    pass_over_columns(PassArguments arguments, Tensors<T, Map::inputs + Term::inputs> tensors,
                      Columns g) {
  constexpr int inputs = Map::inputs + Term::inputs;
  constexpr int unroll = inputs == 1 ? 4 : 2;
  using Vector = Lanes<T, width>;
  const int lane = static_cast<int>(threadIdx.x) % g.lanes;
  const int slice = static_cast<int>(threadIdx.x) / g.lanes;
  const int slices = static_cast<int>(blockDim.x) / g.lanes;
  const int first = (static_cast<int>(blockIdx.x) * g.lanes + lane) * width;
  const int group = static_cast<int>(g.backwards ? gridDim.z - 1 - blockIdx.z : blockIdx.z);
  const std::int64_t stride = std::int64_t{slices} * gridDim.y;
  const std::int64_t line = g.backwards ? -g.channels : g.channels;  // to the next row
  const std::int64_t base = (group * g.rows + (g.backwards ? g.rows - 1 : 0)) * g.channels + first;
  Channel<Map, Term> channels[width];
  int count = 0;

  if (first < g.channels) {
    for (int v = 0; v < width; ++v) {
      channels[v].begin(arguments, group * g.channels + first + v, first + v);
    }
    std::int64_t row = std::int64_t{blockIdx.y} * slices + slice;
    if constexpr (Term::primed) {
      if (row < g.rows) {
        Vector of[inputs];
        for (int i = 0; i < inputs; ++i) {
          of[i] = Vector::load(tensors.from[i] + base + row * line);
        }
        for (int v = 0; v < width; ++v) {
          float values[inputs];
          for (int i = 0; i < inputs; ++i) values[i] = of[i].at[v];
          channels[v].term.prime(as_found<T, Map>(channels[v].map(values)));
        }
      }
    }
    for (; row < g.rows; row += unroll * stride) {
      typename Vector::Bits of[unroll][inputs];
#pragma unroll
      for (int u = 0; u < unroll; ++u) {
        // Behind the end a row that is there is read again: a load without a condition.
        const std::int64_t at = row + u * stride < g.rows ? row + u * stride : row;
        for (int i = 0; i < inputs; ++i) {
          of[u][i] = Vector::fetch(tensors.from[i] + base + at * line);
        }
      }
#pragma unroll
      for (int u = 0; u < unroll; ++u) {
        const std::int64_t at = row + u * stride;
        if (at >= g.rows) break;
        Vector given[inputs];
        for (int i = 0; i < inputs; ++i) given[i] = Vector(of[u][i]);
        Vector result;
        for (int v = 0; v < width; ++v) {
          float values[inputs];
          for (int i = 0; i < inputs; ++i) values[i] = given[i].at[v];
          result.at[v] = channels[v].map(values);
          channels[v].term.add(as_found<T, Map>(result.at[v]), values + Map::inputs);
        }
        if constexpr (Map::stores) result.store(tensors.to + base + at * line);
        ++count;
      }
    }
  }
  if constexpr (Term::sums > 0) {
    add_up_columns<Term::sums, width>(
        g.lanes, [&](int k, int v) { return count > 0 ? channels[v].term.sum(k, count) : 0.0; },
        [&](int k, int of_lane, int v, double total) {
          const int channel = (static_cast<int>(blockIdx.x) * g.lanes + of_lane) * width + v;
          if (channel >= g.channels) return;
          const std::int64_t at = (std::int64_t{k} * gridDim.z + group) * gridDim.y + blockIdx.y;
          arguments.partials[at * g.channels + channel] = total;
        });
  }
}

// Row-major images: planes of `positions` neighbouring elements of one channel.
struct Planes {
  int samples;  // of a group
  int channels;
  std::int64_t positions;
  int lanes;  // threads side by side on a plane
};

// blocks: x channels, y runs over samples, z groups. threads: a power of two, as lanes is.
template <class T, class Map, class Term>
__global__ void __launch_bounds__(256)
    pass_over_planes(PassArguments arguments, Tensors<T, Map::inputs + Term::inputs> tensors,
                     Planes g) {
  constexpr int inputs = Map::inputs + Term::inputs;
  const int lane = static_cast<int>(threadIdx.x) % g.lanes;
  const int slice = static_cast<int>(threadIdx.x) / g.lanes;
  const int stride = static_cast<int>(blockDim.x) / g.lanes * static_cast<int>(gridDim.y);
  const int channel = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.z);
  Channel<Map, Term> of;
  of.begin(arguments, group * g.channels + channel, channel);
  int count = 0;

  for (int n = slice * static_cast<int>(gridDim.y) + static_cast<int>(blockIdx.y); n < g.samples;
       n += stride) {
    const std::int64_t plane =
        ((std::int64_t{group} * g.samples + n) * g.channels + channel) * g.positions;
    for (std::int64_t p = lane; p < g.positions; p += g.lanes) {
      float values[inputs];
      for (int i = 0; i < inputs; ++i) values[i] = widen(tensors.from[i][plane + p]);
      const float result = of.map(values);
      if constexpr (Map::stores) tensors.to[plane + p] = narrow<T>(result);
      if constexpr (Term::primed) {
        if (count == 0) of.term.prime(as_found<T, Map>(result));
      }
      of.term.add(as_found<T, Map>(result), values + Map::inputs);
      ++count;
    }
  }
  if constexpr (Term::sums > 0) {
    double* const of_threads = shared_memory<double>();
    const unsigned me = threadIdx.x;
    for (int k = 0; k < Term::sums; ++k) {
      of_threads[me] = count > 0 ? of.term.sum(k, count) : 0.0;
      __syncthreads();
      for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (me < half) of_threads[me] += of_threads[me + half];
        __syncthreads();
      }
      if (me == 0) {
        const std::int64_t at = (std::int64_t{k} * gridDim.z + group) * gridDim.y + blockIdx.y;
        arguments.partials[at * g.channels + channel] = of_threads[0];
      }
      __syncthreads();
    }
  }
}

inline constexpr int finish_lanes = 16, finish_threads = 512;
// Of shared memory.
template <class Finish>
constexpr std::size_t finish_bytes() {
  constexpr std::size_t sums = Finish::sums;
  return sums * finish_threads * sizeof(double);
}

// The second launch: blocks of finish_lanes channels, 32 threads a channel. Bound by the latency of
// the second cache, where the partials lie: a thread has many loads under way.
template <class Finish>
__global__ void __launch_bounds__(finish_threads)
    finish_pass(Finish finish, const double* partials, int channels, int groups, int blocks) {
  constexpr int slices = finish_threads / finish_lanes, sums = Finish::sums;
  const int lane = static_cast<int>(threadIdx.x) % finish_lanes;
  const int slice = static_cast<int>(threadIdx.x) / finish_lanes;
  const int channel = static_cast<int>(blockIdx.x) * finish_lanes + lane;
  const std::int64_t of_sum = std::int64_t{groups} * blocks * channels;
  double* const of_threads = shared_memory<double>();  // [sums][threads]
  double last = 0;
  for (int group = 0; group < groups; ++group) {
    double totals[sums] = {};
    if (channel < channels) {
      const double* const from = partials + std::int64_t{group} * blocks * channels + channel;
#pragma unroll 8
      for (int b = slice; b < blocks; b += slices) {
        for (int k = 0; k < sums; ++k) totals[k] += from[k * of_sum + std::int64_t{b} * channels];
      }
    }
    for (int k = 0; k < sums; ++k) of_threads[k * finish_threads + threadIdx.x] = totals[k];
    __syncthreads();
    // Each sum by threads of its own.
    double total = 0;
    if (slice < sums) {
      const double* const of_slices = of_threads + slice * finish_threads + lane;
      for (int s = 0; s < slices; ++s) total += of_slices[s * finish_lanes];
    }
    __syncthreads();
    if (slice < sums) of_threads[slice * finish_lanes + lane] = total;
    __syncthreads();
    if (slice == 0 && channel < channels) {
      for (int k = 0; k < sums; ++k) totals[k] = of_threads[k * finish_lanes + lane];
      finish(group * channels + channel, channel, totals);
      if constexpr (Finish::over_groups) last += totals[sums - 1];
    }
    __syncthreads();
  }
  if constexpr (Finish::over_groups) {
    if (slice == 0 && channel < channels) finish.end(channel, last);
  }
}

}  // namespace ftrain::cuda::norms
