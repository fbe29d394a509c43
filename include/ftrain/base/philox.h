// Philox-4x32-10, a counter-based random number generator: the same (key, counter) gives the same
// numbers on every device, thread and rank, with no state to carry.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
// Checked against the known answers of that paper's Random123 library.
#pragma once

#include <cstdint>
#include <string_view>

#include "ftrain/plugin/api.h"

namespace ftrain {

struct Philox {
  std::uint32_t word[4];

  // The 128 random bits of `counter` = (c0, c1, c2, c3) under the 64-bit `key`.
  static FTRAIN_HD Philox at(std::uint64_t key, std::uint32_t c0, std::uint32_t c1,
                             std::uint32_t c2, std::uint32_t c3) {
    std::uint32_t k0 = static_cast<std::uint32_t>(key);
    std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
      const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
  }

  // The same with the counter as two 64-bit halves: `high` names the stream (an op, a purpose),
  // `low` the position in it (an element, a sample, a class).
  static FTRAIN_HD Philox at(std::uint64_t key, std::uint64_t high, std::uint64_t low) {
    return at(key, static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32),
              static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32));
  }

  // Uniform in [0, 1), 24 bits: exact in float, so the same on every device.
  FTRAIN_HD float uniform(int lane) const {
    return static_cast<float>(word[lane] >> 8) * (1.0f / 16777216.0f);
  }
  // 64 bits from two lanes: pair 0 or 1.
  FTRAIN_HD std::uint64_t bits64(int pair) const {
    return (std::uint64_t{word[2 * pair + 1]} << 32) | word[2 * pair];
  }
};

// A word or a name as 64 bits (FNV-1a): streams are called by what they are for.
constexpr std::uint64_t name_hash(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001B3ull;
  return hash;
}

// A 64-bit mix of two words (splitmix64's finaliser): to make stream names out of several numbers.
FTRAIN_HD inline std::uint64_t mix64(std::uint64_t a, std::uint64_t b) {
  std::uint64_t z = a + 0x9E3779B97F4A7C15ull * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace ftrain
