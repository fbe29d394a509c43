// Physical layouts of the CPU device, as TensorType::layout spells them.
//
// Row-major is "". Activations [N, C, H, W] with channels in blocks of B: "aBcd8b" or "aBcd16b", in
// memory [N][C / B][H][W][B]. Only used where C is a multiple of B, so a layout never pads. Weights
// take whatever order oneDNN's convolution wants; their words are oneDNN's format tags.
#pragma once

#include <cstdint>
#include <string>

#include "ftrain/base/shape.h"

namespace ftrain::cpu {

inline const std::string row_major = "";

// The channel block of an activation's layout: 8, 16, or 1 for row-major.
inline std::int64_t channel_block(const std::string& layout) {
  if (layout == "aBcd16b") return 16;
  if (layout == "aBcd8b") return 8;
  return 1;
}

inline std::string blocked_layout(std::int64_t block) {
  return block == 16 ? "aBcd16b" : block == 8 ? "aBcd8b" : row_major;
}

// Whether the kernels of fused norms take this activation.
inline bool takes_fused_norms(const TensorType& x) {
  if (x.dtype != DType::f32 && x.dtype != DType::bf16) return false;
  if (x.shape.rank() == 4) return channel_block(x.layout) > 1;
  return x.layout == row_major && x.shape[1] % 8 == 0;
}

// The block for this instruction set: one AVX-512 register, or one AVX2 register (two of SSE).
inline std::int64_t preferred_block(const std::string& isa) {
  return isa == "avx512" ? 16 : 8;
}

}  // namespace ftrain::cpu
