#include "ftrain/base/dtype.h"

#include <cmath>

namespace ftrain {

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return "u8";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
  }
  return "?";
}

float to_f32(F16 x) {
  const std::uint32_t sign = (x.bits & 0x8000u) << 16;
  const std::uint32_t exponent = x.bits >> 10 & 0x1fu, mantissa = x.bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {  // below the smallest normal number: mantissa * 2^-24
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

F16 to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t size = bits & 0x7fffffffu;
  const auto with_sign = [&](std::uint32_t half) {
    return F16{static_cast<std::uint16_t>(sign | half)};
  };
  if (size > 0x7f800000u) return with_sign(0x7e00u | (size >> 13 & 0x3ffu));
  if (size >= 0x477ff000u) return with_sign(0x7c00u);  // 65520 and more
  if (size < 0x38800000u) {                            // below 2^-14: in steps of 2^-24
    const float steps = std::nearbyint(std::ldexp(std::bit_cast<float>(size), 24));
    return with_sign(static_cast<std::uint32_t>(steps));
  }
  return with_sign((size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13);
}

}  // namespace ftrain
