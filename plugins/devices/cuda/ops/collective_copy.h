// What collectives copy on the device: many small tensors to and from one, f32 to and from bf16.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {

// A tensor, and where it has its place in the packed memory, in words of 4 bytes: each behind the
// one before it, none of them empty.
struct PackedPiece {
  void* at;
  std::uint32_t first, words;
};

void pack(const std::vector<PackedPiece>& pieces, void* packed, const Context& context);
void unpack(const std::vector<PackedPiece>& pieces, const void* packed, const Context& context);

void to_wire(const float* from, __nv_bfloat16* to, std::int64_t count, const Context& context);
void from_wire(const __nv_bfloat16* from, float* to, std::int64_t count, const Context& context);

}  // namespace ftrain::cuda
