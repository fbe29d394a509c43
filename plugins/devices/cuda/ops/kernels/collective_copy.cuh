// Many small tensors as one, so that they travel in one message. Bound by launches: all of them in
// one, whose threads find their tensor by halving.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "plugins/devices/cuda/ops/collective_copy.h"

namespace ftrain::cuda {

// What one launch takes along as its argument: tensors that lie one behind the other when packed,
// from word `first` on.
inline constexpr int pieces_of_launch = 192;
struct PieceTable {
  std::uint32_t first, words;
  int count;
  PackedPiece at[pieces_of_launch];
};

template <bool packs>
__global__ void copy_pieces(PieceTable table, std::uint32_t* packed) {
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < table.words; i += step) {
    const std::uint32_t word = table.first + i;
    int low = 0, high = table.count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (table.at[middle].first <= word)
        low = middle;
      else
        high = middle;
    }
    std::uint32_t* const apart =
        static_cast<std::uint32_t*>(table.at[low].at) + (word - table.at[low].first);
    if constexpr (packs)
      packed[word] = *apart;
    else
      *apart = packed[word];
  }
}

}  // namespace ftrain::cuda
