// Physical orders of tensors on the CUDA device.
#pragma once

namespace ftrain::cuda {

inline constexpr const char* row_major = "";
// Activations [N, C, H, W] as N, H, W, C; weights [K, C, R, S] as K, R, S, C: what tensor cores
// read.
inline constexpr const char* channels_last = "nhwc";

}  // namespace ftrain::cuda
