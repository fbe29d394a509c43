// Winograd's minimal filtering for 3x3 convolutions of stride 1, in all three directions, written
// once for every instruction set: Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks" (2015). For where oneDNN has none (AVX2, bf16, newer versions) or a slower one.
#pragma once

#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

void add_winograd_kernels(KernelList& list);

}  // namespace ftrain::cpu
