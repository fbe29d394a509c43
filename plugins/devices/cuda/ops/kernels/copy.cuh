// Kernels that copy: bytes as they are, other element types, another order. Bound by bytes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "plugins/devices/cuda/ops/kernels/packet.cuh"
#include "plugins/devices/cuda/ops/kernels/shared.cuh"

namespace ftrain::cuda {

template <class Word>
__global__ void copy_words(const Word* from, Word* to, std::int64_t count) {
  for (std::int64_t i = thread_number(); i < count; i += thread_count()) to[i] = from[i];
}

template <class T>
inline constexpr bool is_16_bit = std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>;

// Integers lose their fraction as C++ has it. Integers become floats by way of f64: 64 bits are
// rounded as on the host.
template <class To, class From>
__device__ To converted(From x) {
  if constexpr (is_16_bit<From>) {
    return converted<To>(widen(x));
  } else if constexpr (is_16_bit<To>) {
    return narrow<To>(converted<float>(x));
  } else if constexpr (std::is_integral_v<From> && !std::is_integral_v<To>) {
    return static_cast<To>(static_cast<double>(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class From, class To>
__global__ void convert(const From* from, To* to, std::int64_t count) {
  for (std::int64_t i = thread_number(); i < count; i += thread_count()) {
    to[i] = converted<To>(from[i]);
  }
}

// f32 and 16 bits both ways, 8 at a time.
template <class To>
__global__ void narrow_floats(const float* from, To* to, std::int64_t eights) {
  for (std::int64_t i = thread_number(); i < eights; i += thread_count()) {
    const Packet<float> low = Packet<float>::load(from + 8 * i);
    const Packet<float> high = Packet<float>::load(from + 8 * i + 4);
    Packet<To> p;
    for (int k = 0; k < 4; ++k) {
      p.at[k] = low.at[k];
      p.at[4 + k] = high.at[k];
    }
    p.store(to + 8 * i);
  }
}
template <class From>
__global__ void widen_floats(const From* from, float* to, std::int64_t eights) {
  for (std::int64_t i = thread_number(); i < eights; i += thread_count()) {
    const Packet<From> p = Packet<From>::load(from + 8 * i);
    Packet<float> low, high;
    for (int k = 0; k < 4; ++k) {
      low.at[k] = p.at[k];
      high.at[k] = p.at[4 + k];
    }
    low.store(to + 8 * i);
    high.store(to + 8 * i + 4);
  }
}

// [batch, rows, columns] -> [batch, columns, rows] by tiles in shared memory, so that both sides go
// along lines of memory. A tile's lines are one longer than it: its columns fall into other banks.
inline constexpr int tile_edge = 32, tile_lines = 8;
template <class Word>
inline constexpr int tile_bytes = tile_edge*(tile_edge + 1) * static_cast<int>(sizeof(Word));

template <class Word>
__global__ void transpose(const Word* from, Word* to, std::int64_t batch, std::int64_t rows,
                          std::int64_t columns) {
  Word* const tile = shared_memory<Word>();
  const int x = static_cast<int>(threadIdx.x) % tile_edge;
  const int y = static_cast<int>(threadIdx.x) / tile_edge;
  const std::int64_t first_column = std::int64_t{blockIdx.x} * tile_edge;
  for (std::int64_t n = blockIdx.z; n < batch; n += gridDim.z) {
    for (std::int64_t first_row = std::int64_t{blockIdx.y} * tile_edge; first_row < rows;
         first_row += std::int64_t{gridDim.y} * tile_edge) {
      for (int line = y; line < tile_edge; line += tile_lines) {
        const std::int64_t row = first_row + line, column = first_column + x;
        if (row < rows && column < columns) {
          tile[line * (tile_edge + 1) + x] = from[(n * rows + row) * columns + column];
        }
      }
      __syncthreads();
      for (int line = y; line < tile_edge; line += tile_lines) {
        const std::int64_t row = first_row + x, column = first_column + line;
        if (row < rows && column < columns) {
          to[(n * columns + column) * rows + row] = tile[x * (tile_edge + 1) + line];
        }
      }
      __syncthreads();
    }
  }
}

}  // namespace ftrain::cuda
