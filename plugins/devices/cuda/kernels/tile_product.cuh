// A product by tiles of 64 x 64: each thread has 4 x 4 sums, and what the block reads of 16 steps
// in k lies in shared memory.
//
// Bound by the f32 multipliers: of each step a thread reads 8 numbers for 16 multiplications.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/kernels/shared.cuh"

namespace ftrain::cuda {

struct ProductTile {
  static constexpr int side = 64, depth = 16, each = 4;
  static constexpr unsigned threads = (side / each) * (side / each);
  // A row of shared memory: 16-byte aligned, and neighbours in k not in one bank.
  static constexpr int pitch = side + 4;
  static constexpr std::size_t shared_bytes = 2 * depth * pitch * sizeof(float);
};

// 64 rows (of m or n) by 16 of k, as [k][row]; 0 beyond the ends. `by_k`: the matrix lies as
// [k, rows], otherwise as [rows, k].
template <bool by_k>
__device__ void load_product_tile(const float* from, std::int64_t rows, std::int64_t k,
                                  std::int64_t first_row, std::int64_t first_k, std::int64_t end_k,
                                  float* to) {
  using Tile = ProductTile;
  for (int e = static_cast<int>(threadIdx.x); e < Tile::side * Tile::depth;
       e += static_cast<int>(Tile::threads)) {
    const int i = by_k ? e / Tile::side : e % Tile::depth;
    const int r = by_k ? e % Tile::side : e / Tile::depth;
    const std::int64_t row = first_row + r, step = first_k + i;
    float value = 0;
    if (row < rows && step < end_k) value = by_k ? from[step * rows + row] : from[row * k + step];
    to[i * Tile::pitch + r] = value;
  }
}

template <bool a_transposed, bool b_transposed>
__global__ void multiply_tiles(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t run,
                               const float* a, const float* b, float* c, bool add) {
  using Tile = ProductTile;
  float* const a_tile = shared_memory<float>();
  float* const b_tile = a_tile + Tile::depth * Tile::pitch;
  const std::int64_t first_m = static_cast<std::int64_t>(blockIdx.x) * Tile::side;
  const std::int64_t first_n = static_cast<std::int64_t>(blockIdx.y) * Tile::side;
  const std::int64_t begin_k = static_cast<std::int64_t>(blockIdx.z) * run;
  const std::int64_t end_k = begin_k + run < k ? begin_k + run : k;
  const int column = static_cast<int>(threadIdx.x) % (Tile::side / Tile::each) * Tile::each;
  const int row = static_cast<int>(threadIdx.x) / (Tile::side / Tile::each) * Tile::each;
  float sums[Tile::each][Tile::each] = {};
  for (std::int64_t at = begin_k; at < end_k; at += Tile::depth) {
    load_product_tile<a_transposed>(a, m, k, first_m, at, end_k, a_tile);
    load_product_tile<!b_transposed>(b, n, k, first_n, at, end_k, b_tile);
    __syncthreads();
    for (int i = 0; i < Tile::depth; ++i) {
      const float4 x = *reinterpret_cast<const float4*>(a_tile + i * Tile::pitch + row);
      const float4 y = *reinterpret_cast<const float4*>(b_tile + i * Tile::pitch + column);
      const float xs[Tile::each] = {x.x, x.y, x.z, x.w};
      const float ys[Tile::each] = {y.x, y.y, y.z, y.w};
      for (int p = 0; p < Tile::each; ++p) {
        for (int q = 0; q < Tile::each; ++q) sums[p][q] = fmaf(xs[p], ys[q], sums[p][q]);
      }
    }
    __syncthreads();
  }
  c += static_cast<std::int64_t>(blockIdx.z) * m * n;
  for (int p = 0; p < Tile::each; ++p) {
    for (int q = 0; q < Tile::each; ++q) {
      const std::int64_t i = first_m + row + p, j = first_n + column + q;
      if (i >= m || j >= n) continue;
      c[i * n + j] = add ? c[i * n + j] + sums[p][q] : sums[p][q];
    }
  }
}

}  // namespace ftrain::cuda
