// The families of oneDNN kernels, joined by add_onednn_kernels().
#pragma once

#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

void add_convolutions(KernelList& list);          // direct and Winograd
void add_grouped_convolutions(KernelList& list);  // small groups, widened to a register
void add_whole_depthwise(KernelList& list);       // depthwise over a whole image: weight gradient
void add_products(KernelList& list);              // matmul
void add_reorders(KernelList& list);

}  // namespace ftrain::cpu
