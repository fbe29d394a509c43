// The random numbers of ops: one place, so that every kernel on every device draws the same.
//
// A number is Philox(key, step, element): the key names the op's purpose under its seed, and the
// element counts over the global batch, so neither ranks nor threads change what is drawn.
#pragma once

#include <cstdint>

#include "core/base/philox.h"

namespace ftrain {

// The key of a purpose ("dropout", "flip") under an op's seed: FNV-1a of the word, mixed in.
constexpr std::uint64_t purpose_hash(const char* purpose) {
  std::uint64_t hash = 0xCBF29CE484222325ull;
  for (; *purpose != 0; ++purpose) {
    hash = (hash ^ static_cast<std::uint8_t>(*purpose)) * 0x100000001B3ull;
  }
  return hash;
}
inline constexpr std::uint64_t dropout_purpose = purpose_hash("dropout");
inline constexpr std::uint64_t flip_purpose = purpose_hash("flip");

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

}  // namespace ftrain
