// The random numbers of ops: one place, so that every kernel on every device draws the same.
//
// A number is Philox(key, step, element): the key names the op's purpose under its seed, and the
// element counts over the global batch, so neither ranks nor threads change what is drawn.
#pragma once

#include <cstdint>

#include "ftrain/base/philox.h"

namespace ftrain {

// The key of a draw is mix64(an op's seed, its purpose).
inline constexpr std::uint64_t dropout_purpose = name_hash("dropout");
inline constexpr std::uint64_t flip_purpose = name_hash("flip");
inline constexpr std::uint64_t sample_purpose = name_hash("sample_classes");
inline constexpr std::uint64_t rounding_purpose = name_hash("class_center_update");

// Whether dropout keeps an element. `key` is mix64(seed, dropout_purpose); `element` is
// first_sample * (elements of a row) + the element's row-major index in this rank's tensor.
FTRAIN_HD inline bool dropout_keeps(std::uint64_t key, std::int64_t step, std::int64_t element,
                                    float p) {
  return Philox::at(key, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(element))
             .uniform(0) >= p;
}

// Whether an image is flipped left to right. `key` is mix64(seed, flip_purpose); `sample` is
// first_sample + n.
FTRAIN_HD inline bool image_flips(std::uint64_t key, std::int64_t step, std::int64_t sample,
                                  float probability) {
  return Philox::at(key, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(sample))
             .uniform(0) < probability;
}

// Whether Partial FC draws a class in a step. `key` is mix64(seed, sample_purpose); `global` is the
// class's number over all ranks. Philox gives four numbers: neighbours by four share a draw.
FTRAIN_HD inline bool class_is_drawn(std::uint64_t key, std::int64_t step, std::int64_t global,
                                     float rate) {
  const Philox draw =
      Philox::at(key, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(global) / 4);
  return draw.uniform(static_cast<int>(global % 4)) < rate;
}

// Rounding to bf16 up or down, each as probable as it is near, so that the mean is exact: `number`
// is uniform in [0, 2^16). Infinities and NaNs stay.
FTRAIN_HD inline std::uint16_t bf16_bits(float x, std::uint32_t number) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  if ((bits & 0x7f800000u) != 0x7f800000u) return static_cast<std::uint16_t>((bits + number) >> 16);
  // A NaN must not become an infinity when its lower half goes.
  const bool nan = (bits & 0x7fffffu) != 0;
  return static_cast<std::uint16_t>(bits >> 16 | (nan ? 0x40u : 0u));
}

// The numbers that the results of a row update are rounded by, eight neighbours of a row a draw.
// `key` is mix64(mix64(seed, rounding_purpose), tensor): 0 the class centers, then their slots;
// `global` is the class's number over all ranks.
struct RowRounding {
  static constexpr int each = 8;

  Philox draw;

  static FTRAIN_HD RowRounding at(std::uint64_t key, std::int64_t step, std::int64_t global,
                                  std::int64_t width, std::int64_t column) {
    const auto blocks = static_cast<std::uint64_t>((width + each - 1) / each);
    return {Philox::at(
        key, static_cast<std::uint64_t>(step),
        static_cast<std::uint64_t>(global) * blocks + static_cast<std::uint64_t>(column / each))};
  }
  FTRAIN_HD std::uint32_t number(std::int64_t column) const {
    return draw.word[column % each / 2] >> (16 * (column % 2)) & 0xffffu;
  }
};

}  // namespace ftrain
