// Conversion of elements between any two types, one by one.
#pragma once

#include <cstdint>

#include "ftrain/base/dtype.h"

namespace ftrain::cpu {

// Floating types round to the nearest (even on ties); integers lose their fraction, as C++ does.
void convert(const void* from, DType from_type, void* to, DType to_type, std::int64_t count);

}  // namespace ftrain::cpu
