// The part of the reductions that sums over columns and channels.
#pragma once

#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {

// sum_rows, sum_groups, prelu's gradient, average pools.
void add_column_kernels(KernelList& list);

}  // namespace ftrain::cuda
