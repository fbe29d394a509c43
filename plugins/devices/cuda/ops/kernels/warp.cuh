// Sums and maxima over the threads of a warp and of a block.
//
// Always in the same order, so the same numbers give the same bits. All threads must come, in whole
// warps of a block of one dimension; all of them get the result.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "plugins/devices/cuda/ops/kernels/shared.cuh"

namespace ftrain::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// By halves: each lane adds the same pairs. `lanes` (a power of two) reduces within groups of so
// many.
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op, int lanes = warp_size) {
  for (int other = lanes / 2; other > 0; other /= 2) {
    value = op(value, __shfl_xor_sync(all_lanes, value, other));
  }
  return value;
}
template <class T>
__device__ __forceinline__ T warp_sum(T value, int lanes = warp_size) {
  return warp_reduce(value, Sum{}, lanes);
}
template <class T>
__device__ __forceinline__ T warp_max(T value, int lanes = warp_size) {
  return warp_reduce(value, Max{}, lanes);
}

// `space`: shared memory for one T of each warp, free again afterwards. `nothing`: what op leaves
// the other as it is.
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T value, T nothing, Op op, T* space) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const int warps = static_cast<int>(blockDim.x) / warp_size;
  value = warp_reduce(value, op);
  if (lane == 0) space[warp] = value;
  __syncthreads();
  // Every warp does the last step by itself: that spares handing the result round.
  value = warp_reduce(lane < warps ? space[lane] : nothing, op);
  __syncthreads();
  return value;
}
template <class T>
__device__ __forceinline__ T block_sum(T value, T* space) {
  return block_reduce(value, T(0), Sum{}, space);
}
// `lowest`: no value is less.
template <class T>
__device__ __forceinline__ T block_max(T value, T lowest, T* space) {
  return block_reduce(value, lowest, Max{}, space);
}
// Bytes of `space` for a block of so many threads.
template <class T>
constexpr std::size_t block_reduce_bytes(unsigned threads) {
  return threads / warp_size * sizeof(T);
}

}  // namespace ftrain::cuda
