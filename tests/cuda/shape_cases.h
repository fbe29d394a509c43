// Rows beside the op table: shapes at which this device's kernels take other ways than at the small
// ones of the table, with several blocks, half-filled ones, and strides that are not whole; and ops
// that rewrites of this device alone make.
#pragma once

#include <vector>

#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cuda {

std::vector<cpu::OpCase> shape_cases();

}  // namespace ftrain::cuda
