// What sums over many elements are held in.
#pragma once

#include "ftrain/base/dtype.h"

namespace ftrain {

// 16-bit floats are stored, never accumulated: sums, means, moments, products of matrices and
// weights' gradients of them are f32.
constexpr DType sum_type(DType of) {
  return of == DType::bf16 || of == DType::f16 ? DType::f32 : of;
}

}  // namespace ftrain
