// Element types of tensors.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ftrain/plugin/api.h"

namespace ftrain {

enum class DType : std::uint8_t { u8, i32, i64, f16, bf16, f32, f64 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return 1;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::i32:
    case DType::f32:
      return 4;
    case DType::i64:
    case DType::f64:
      return 8;
  }
  return 0;
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64;
}

// "u8", "i32", ... as plans and checkpoints print them.
FTRAIN_API std::string_view name_of(DType dtype);

// bfloat16 in memory: the upper half of an f32. Arithmetic is done in f32.
struct BF16 {
  std::uint16_t bits;
};

inline float to_f32(BF16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

// To the nearest, ties to even; a NaN stays one.
inline BF16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

// IEEE half precision in memory. Arithmetic is done in f32.
struct F16 {
  std::uint16_t bits;
};

FTRAIN_API float to_f32(F16 x);
// To the nearest, ties to even; beyond 65504 infinite; a NaN stays one.
FTRAIN_API F16 to_f16(float x);

// The DType of a C++ type: dtype_of<float> is f32.
template <class T>
inline constexpr DType dtype_of = [] {
  if constexpr (sizeof(T) == 1)
    return DType::u8;
  else if constexpr (std::same_as<T, BF16>)
    return DType::bf16;
  else if constexpr (std::same_as<T, F16>)
    return DType::f16;
  else if constexpr (std::same_as<T, std::int32_t>)
    return DType::i32;
  else if constexpr (std::same_as<T, std::int64_t>)
    return DType::i64;
  else if constexpr (std::same_as<T, float>)
    return DType::f32;
  else
    return DType::f64;
}();

}  // namespace ftrain
