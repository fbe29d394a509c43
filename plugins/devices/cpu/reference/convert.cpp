#include "plugins/devices/cpu/reference/convert.h"

#include <bit>
#include <cmath>
#include <limits>

namespace ftrain::cpu {
namespace {

// The 16-bit types, by their bits.
struct Half {
  std::uint16_t bits;
  explicit operator double() const {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == 31) {
      return fraction ? std::numeric_limits<double>::quiet_NaN()
                      : sign * std::numeric_limits<double>::infinity();
    }
    return sign *
           (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
  }
  explicit Half(double x) {
    const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
    const double size = std::abs(x);
    if (std::isnan(x)) {
      bits = 0x7E00;
    } else if (size >= 65520) {  // halfway between the largest number and the next: infinity
      bits = sign | 0x7C00;
    } else {
      // Units of the last place; nearbyint rounds to even, and a carry into the exponent is right.
      const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
      const auto units =
          static_cast<std::uint16_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
      bits = static_cast<std::uint16_t>(sign + ((exponent + 14) << 10) + units);
    }
  }
};

struct BFloat {
  std::uint16_t bits;
  explicit operator double() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  explicit BFloat(double x) {
    auto word = std::bit_cast<std::uint32_t>(static_cast<float>(x));
    if (std::isnan(x)) {
      bits = 0x7FC0;
    } else {
      word += 0x7FFF + ((word >> 16) & 1);
      bits = static_cast<std::uint16_t>(word >> 16);
    }
  }
};

template <class F>
void with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::u8:
      return f.template operator()<std::uint8_t>();
    case DType::i32:
      return f.template operator()<std::int32_t>();
    case DType::i64:
      return f.template operator()<std::int64_t>();
    case DType::f16:
      return f.template operator()<Half>();
    case DType::bf16:
      return f.template operator()<BFloat>();
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
  }
}

template <class From, class To>
To convert_one(From x) {
  if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
    return static_cast<To>(x);
  } else {
    return static_cast<To>(static_cast<double>(x));
  }
}

}  // namespace

void convert(const void* from, DType from_type, void* to, DType to_type, std::int64_t count) {
  with_type(from_type, [&]<class From>() {
    with_type(to_type, [&]<class To>() {
      const auto* x = static_cast<const From*>(from);
      auto* y = static_cast<To*>(to);
      for (std::int64_t i = 0; i < count; ++i) y[i] = convert_one<From, To>(x[i]);
    });
  });
}

}  // namespace ftrain::cpu
