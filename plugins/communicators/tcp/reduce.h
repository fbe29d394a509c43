// Sums of parts in the order of the ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "ftrain/device/communicator.h"

namespace ftrain::tcp {

// Elements at a time: what lies between two sums stays in the first cache.
inline constexpr std::int64_t reduce_block = 2048;

template <class T, class Combine>
void combine_into(T* out, const T* a, const T* b, std::int64_t count, Combine combine) {
// `out` is one of the operands, or apart from both.
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) out[i] = combine(a[i], b[i]);
}

// ((p0 + p1) + p2) + ...; `out` may be one of the parts.
template <class T, class Combine>
void combine_parts(T* out, std::span<const void* const> parts, std::int64_t count,
                   Combine combine) {
  const auto part = [&](std::size_t r, std::int64_t at) {
    return static_cast<const T*>(parts[r]) + at;
  };
  T between[reduce_block];
  for (std::int64_t at = 0; at < count; at += reduce_block) {
    const std::int64_t n = std::min(reduce_block, count - at);
    const T* sum = part(0, at);
    for (std::size_t r = 1; r + 1 < parts.size(); ++r) {
      combine_into(between, sum, part(r, at), n, combine);
      sum = between;
    }
    if (parts.size() > 1) {
      combine_into(out + at, sum, part(parts.size() - 1, at), n, combine);
    } else {
      std::memmove(out + at, sum, static_cast<std::size_t>(n) * sizeof(T));
    }
  }
}

template <class T>
void reduce_parts(T* out, std::span<const void* const> parts, std::int64_t count,
                  Reduction reduction) {
  if (reduction == Reduction::max) {
    combine_parts(out, parts, count, [](T a, T b) { return std::max(a, b); });
  } else {
    combine_parts(out, parts, count, [](T a, T b) { return static_cast<T>(a + b); });
  }
}

}  // namespace ftrain::tcp
