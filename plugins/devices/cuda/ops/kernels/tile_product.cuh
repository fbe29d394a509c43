// A product by tiles of side x side: each thread has each x each sums, and what the block reads of
// 16 steps in k lies in shared memory, twice, so that the next 16 are on their way from memory
// while these are multiplied.
//
// Bound by the f32 multipliers. Of 16 steps a block of side 128 reads 16 KiB and does 2 * 128 * 128
// * 16 = 524,288 operations: 32 a byte of memory or second cache, where an H200 has 67 TFLOP/s to
// some 10 TB/s of cache. Of one step a thread reads 16 numbers of shared memory for 64
// multiplications. Side 64 has half of both, for products that have too few tiles of 128.
//
// A sum goes along k in order by fused multiply-adds, whatever the side: its bits do not depend on
// it.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/packet.cuh"
#include "plugins/devices/cuda/ops/kernels/shared.cuh"

namespace ftrain::cuda {

template <int side_>
struct ProductTile {
  static constexpr int side = side_, depth = 16;
  static constexpr int lanes = 16;  // of threads, along either side
  static constexpr unsigned threads = lanes * lanes;
  // A thread's sums: `parts` runs of 4 along either side, 64 apart, so that the 16 lanes read 256
  // bytes side by side.
  static constexpr int parts = side / (4 * lanes), each = 4 * parts;
  // Groups of 4 elements that a thread brings of one matrix.
  static constexpr int groups = side * depth / 4 / static_cast<int>(threads);
  // A row of shared memory: 16-byte aligned, and neighbours in k not in one bank.
  static constexpr int pitch = side + 4;
  static constexpr int matrix = depth * pitch;  // floats of one matrix in one buffer
  static constexpr std::size_t shared_bytes = 2 * 2 * matrix * sizeof(float);
};

// One of the two matrices, as rows of m or n by k.
template <class T>
struct ProductOperand {
  const T* at = nullptr;
  std::int64_t rows = 0, k = 0;
  bool by_k = false;   // lies as [k, rows], else as [rows, k]
  bool whole = false;  // groups of 4 lie within it or beyond it, and are aligned
};

template <class T>
__device__ void load_group(const T* from, float (&to)[4]) {
  if constexpr (sizeof(T) == sizeof(float)) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
  } else {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    unpack<T>(words.x, to[0], to[1]);
    unpack<T>(words.y, to[2], to[3]);
  }
}

// Where a thread's group stands in the tile: 4 elements along what is contiguous in memory.
template <class Tile>
struct ProductPlace {
  int row = 0, step = 0;

  __device__ ProductPlace(int group, bool by_k) {
    const int e = group * static_cast<int>(Tile::threads) + static_cast<int>(threadIdx.x);
    row = by_k ? e % (Tile::side / 4) * 4 : e / (Tile::depth / 4);
    step = by_k ? e / (Tile::side / 4) : e % (Tile::depth / 4) * 4;
  }
};

// The thread's share of side rows by 16 of k; 0 beyond the ends.
template <class Tile, class T>
__device__ void fetch_tile(const ProductOperand<T>& from, std::int64_t first_row,
                           std::int64_t first_k, std::int64_t end_k, float (&to)[Tile::groups][4]) {
#pragma unroll
  for (int g = 0; g < Tile::groups; ++g) {
    const ProductPlace<Tile> place(g, from.by_k);
    const std::int64_t row = first_row + place.row, step = first_k + place.step;
    const bool inside = row < from.rows && step < end_k;
    const T* const at = from.at + (from.by_k ? step * from.rows + row : row * from.k + step);
    if (from.whole) {
      if (inside) {
        load_group(at, to[g]);
      } else {
        for (int i = 0; i < 4; ++i) to[g][i] = 0;
      }
    } else {
      const std::int64_t left = from.by_k ? from.rows - row : end_k - step;
      for (int i = 0; i < 4; ++i) to[g][i] = inside && i < left ? widen(at[i]) : 0.0f;
    }
  }
}

// ... into shared memory as [k][row].
template <class Tile>
__device__ void keep_tile(bool by_k, const float (&from)[Tile::groups][4], float* to) {
#pragma unroll
  for (int g = 0; g < Tile::groups; ++g) {
    const ProductPlace<Tile> place(g, by_k);
    if (by_k) {
      *reinterpret_cast<float4*>(to + place.step * Tile::pitch + place.row) =
          make_float4(from[g][0], from[g][1], from[g][2], from[g][3]);
    } else {
      for (int i = 0; i < 4; ++i) to[(place.step + i) * Tile::pitch + place.row] = from[g][i];
    }
  }
}

// The thread's `each` numbers of one step.
template <class Tile>
__device__ void read_lane(const float* step, int lane, float (&to)[Tile::each]) {
#pragma unroll
  for (int part = 0; part < Tile::parts; ++part) {
    const float4 four = *reinterpret_cast<const float4*>(step + part * 64 + lane * 4);
    to[4 * part] = four.x;
    to[4 * part + 1] = four.y;
    to[4 * part + 2] = four.z;
    to[4 * part + 3] = four.w;
  }
}

// The grid has a block for each tile, those along m side by side, and in y one for each run of k.
// `whole_rows`: groups of 4 along n lie within c or beyond it, and are aligned.
template <class Tile, class A, class B>
__global__ void __launch_bounds__(Tile::threads, 2)
    multiply_tiles(ProductOperand<A> a, ProductOperand<B> b, std::int64_t run, float* c, bool add,
                   bool whole_rows) {
  float* const shared = shared_memory<float>();  // a, b, a, b
  const std::int64_t along_m = (a.rows + Tile::side - 1) / Tile::side;
  const std::int64_t first_m = blockIdx.x % along_m * Tile::side;
  const std::int64_t first_n = blockIdx.x / along_m * Tile::side;
  const std::int64_t begin_k = blockIdx.y * run;
  const std::int64_t end_k = begin_k + run < a.k ? begin_k + run : a.k;
  const int column = static_cast<int>(threadIdx.x) % Tile::lanes;
  const int row = static_cast<int>(threadIdx.x) / Tile::lanes;

  float sums[Tile::each][Tile::each] = {};
  float next_a[Tile::groups][4], next_b[Tile::groups][4];
  if (begin_k < end_k) {
    fetch_tile<Tile>(a, first_m, begin_k, end_k, next_a);
    fetch_tile<Tile>(b, first_n, begin_k, end_k, next_b);
    keep_tile<Tile>(a.by_k, next_a, shared);
    keep_tile<Tile>(b.by_k, next_b, shared + Tile::matrix);
  }
  __syncthreads();
  int buffer = 0;
  for (std::int64_t at = begin_k; at < end_k; at += Tile::depth) {
    const bool more = at + Tile::depth < end_k;
    if (more) {
      fetch_tile<Tile>(a, first_m, at + Tile::depth, end_k, next_a);
      fetch_tile<Tile>(b, first_n, at + Tile::depth, end_k, next_b);
    }
    const float* const a_tile = shared + buffer * 2 * Tile::matrix;
    const float* const b_tile = a_tile + Tile::matrix;
#pragma unroll
    for (int i = 0; i < Tile::depth; ++i) {
      float x[Tile::each], y[Tile::each];
      read_lane<Tile>(a_tile + i * Tile::pitch, row, x);
      read_lane<Tile>(b_tile + i * Tile::pitch, column, y);
#pragma unroll
      for (int p = 0; p < Tile::each; ++p) {
#pragma unroll
        for (int q = 0; q < Tile::each; ++q) sums[p][q] = fmaf(x[p], y[q], sums[p][q]);
      }
    }
    buffer = 1 - buffer;
    if (more) {
      float* const to = shared + buffer * 2 * Tile::matrix;
      keep_tile<Tile>(a.by_k, next_a, to);
      keep_tile<Tile>(b.by_k, next_b, to + Tile::matrix);
    }
    __syncthreads();
  }

  c += blockIdx.y * a.rows * b.rows;
#pragma unroll
  for (int p = 0; p < Tile::each; ++p) {
    const std::int64_t i = first_m + p / 4 * 64 + row * 4 + p % 4;
    if (i >= a.rows) continue;
#pragma unroll
    for (int part = 0; part < Tile::parts; ++part) {
      const std::int64_t j = first_n + part * 64 + column * 4;
      float* const to = c + i * b.rows + j;
      const float* const from = sums[p] + 4 * part;
      if (whole_rows && j < b.rows) {
        const float4 old = add ? *reinterpret_cast<const float4*>(to) : make_float4(0, 0, 0, 0);
        *reinterpret_cast<float4*>(to) =
            make_float4(old.x + from[0], old.y + from[1], old.z + from[2], old.w + from[3]);
      } else {
        for (int q = 0; q < 4; ++q) {
          if (j + q < b.rows) to[q] = add ? to[q] + from[q] : from[q];
        }
      }
    }
  }
}

// The results of parts of k, one after another. Bound by reading them from the second cache.
static __global__ void add_parts(std::int64_t count, std::int64_t parts, const float* from,
                                 float* to, bool add) {
  const std::int64_t i = thread_number();
  if (i >= count) return;
  float sum = add ? to[i] : 0;
  for (std::int64_t part = 0; part < parts; ++part) sum += from[part * count + i];
  to[i] = sum;
}

// Elements stored in 16 bits as f32. Bound by memory: 6 bytes an element.
template <class T>
__global__ void widen_all(std::int64_t count, const T* from, float* to) {
  const std::int64_t packets = count / packet_size<T>;
  for (std::int64_t i = thread_number(); i < packets; i += thread_count()) {
    const Packet<T> p = Packet<T>::load(from + i * packet_size<T>);
    float* const at = to + i * packet_size<T>;
    *reinterpret_cast<float4*>(at) = make_float4(p.at[0], p.at[1], p.at[2], p.at[3]);
    *reinterpret_cast<float4*>(at + 4) = make_float4(p.at[4], p.at[5], p.at[6], p.at[7]);
  }
  for (std::int64_t i = packets * packet_size<T> + thread_number(); i < count;
       i += thread_count()) {
    to[i] = widen(from[i]);
  }
}

}  // namespace ftrain::cuda
