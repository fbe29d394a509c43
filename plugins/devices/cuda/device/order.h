// The host's side of layout.h: tensors between their own order and row-major.
#pragma once

#include "ftrain/base/shape.h"

namespace ftrain::cuda {

// Also of tensors whose order is another one by name alone: one channel, or one position.
bool is_row_major(const TensorType& type);

// All of memory of the host.
void to_row_major(const TensorType& type, const void* from, void* row_major);
void from_row_major(const TensorType& type, const void* row_major, void* to);

}  // namespace ftrain::cuda
