// The part of the updates that renews running statistics.
#pragma once

#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {

void add_running_kernels(KernelList& list);  // of one norm, of many, and of other states

}  // namespace ftrain::cuda
