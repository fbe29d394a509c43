// The families of kernels of the folded ops (folded/ops.h), joined by add_folded_kernels().
#pragma once

#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

// oneDNN's convolution with the bias and the addition inside.
void add_onednn_folded_kernels(KernelList& list);
// Any convolution kernel and a pass over its result while that is in the cache.
void add_sliced_folded_kernels(KernelList& list);

}  // namespace ftrain::cpu
