#include "plugins/devices/cpu/class_center/tile.h"

#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/class_center/tile.cpp"
// Highway's order: foreach_target compiles this file once a target, then highway.h.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu::class_center {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
using N = std::int64_t;

constexpr N kLanes = HWY_LANES(float);
constexpr N kRows = row_block;
// Sums in registers: 6 x 4 vectors of 32 registers, 6 x 2 of 16.
constexpr N kMostVectors = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
constexpr N kLine = 16;           // floats of a cache line
constexpr N kSmallBatch = 65536;  // floats of all features

// Calls f(first, vectors as a constant) for blocks of columns that make up `columns`.
template <class F>
HWY_INLINE void each_block(N columns, const F& f) {
  N first = 0;
  const auto left = [&] { return (columns - first) / kLanes; };
  if constexpr (kMostVectors == 4) {
    for (; left() >= 4; first += 4 * kLanes) f(first, std::integral_constant<N, 4>());
  }
  for (; left() >= 2; first += 2 * kLanes) f(first, std::integral_constant<N, 2>());
  for (; left() >= 1; first += kLanes) f(first, std::integral_constant<N, 1>());
}

HWY_INLINE N whole_vectors(N columns) {
  return (columns + kLanes - 1) / kLanes * kLanes;
}

template <N vectors>
struct Sums {
  V at[kRows][vectors];
};

// sums[r][v] = sum over k of a[r][k] * p[k * vectors + v]: a block's column panel lies packed.
template <N vectors>
HWY_INLINE void multiply(const float* const* a, N count, const float* p, const float* const* next,
                         N next_first, Sums<vectors>& sums) {
  const D d;
  for (N r = 0; r < kRows; ++r) {
    for (N v = 0; v < vectors; ++v) sums.at[r][v] = hn::Zero(d);
  }
  const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3], *a4 = a[4], *a5 = a[5];
  for (N k = 0; k < count;) {
    if (next != nullptr) {
      for (N r = 0; r < kRows; ++r) {
        __builtin_prefetch(next[r] + next_first + k, 0, 2);
      }
    }
    const N end = std::min(k + kLine, count);
    for (; k < end; ++k) {
      V column[vectors];
      for (N v = 0; v < vectors; ++v) column[v] = hn::Load(d, p + v * kLanes);
      p += vectors * kLanes;
      const float* const row[kRows] = {a0, a1, a2, a3, a4, a5};
      for (N r = 0; r < kRows; ++r) {
        const V value = hn::Set(d, row[r][k]);
        for (N v = 0; v < vectors; ++v) {
          sums.at[r][v] = hn::MulAdd(value, column[v], sums.at[r][v]);
        }
      }
    }
  }
}

void Pack(const Sizes& s, const float* features, float* by_column, float* by_row) {
  // By column: for each block of samples [width][block]; by row: for each block of the width
  // [batch][block].
  each_block(s.padded, [&](N first, auto vectors) {
    const N block = vectors * kLanes;
    float* const to = by_column + first * s.width;
    const N samples = std::min(block, s.batch - first);
    std::fill(to, to + s.width * block, 0.0f);
    for (N line = 0; line < s.width; line += kLine) {
      for (N b = 0; b < samples; ++b) {
        const float* const from = features + (first + b) * s.width;
        for (N k = line; k < std::min(line + kLine, s.width); ++k) to[k * block + b] = from[k];
      }
    }
  });
  if (by_row == nullptr) return;
  each_block(whole_vectors(s.width), [&](N first, auto vectors) {
    const N block = vectors * kLanes;
    float* const to = by_row + first * s.batch;
    for (N b = 0; b < s.batch; ++b) {
      for (N k = 0; k < block; ++k) {
        to[b * block + k] = first + k < s.width ? features[b * s.width + first + k] : 0.0f;
      }
    }
  });
}

float Dot(const float* a, const float* b, N n) {
  const D d;
  V s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  N i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, a + i + kLanes), hn::LoadU(d, b + i + kLanes), s1);
    s2 = hn::MulAdd(hn::LoadU(d, a + i + 2 * kLanes), hn::LoadU(d, b + i + 2 * kLanes), s2);
    s3 = hn::MulAdd(hn::LoadU(d, a + i + 3 * kLanes), hn::LoadU(d, b + i + 3 * kLanes), s3);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void InverseLengths(const Sizes& s, const float* const* rows, N count, float* inverse) {
  for (N i = 0; i < count; ++i) {
    inverse[i] = 1.0f / std::max(std::sqrt(Dot(rows[i], rows[i], s.width)), 1e-12f);
  }
}

void Cosines(const Sizes& s, const float* const* rows, N count, const float* by_column,
             const float* inverse, const float* const* next, float* cosines) {
  const D d;
  const auto block_of_rows = [&](N i, N first, auto vectors) {
    Sums<vectors> sums;
    multiply<vectors>(rows + i, s.width, by_column + first * s.width,
                      next != nullptr && first == 0 ? next + i : nullptr, 0, sums);
    for (N r = 0; r < kRows; ++r) {
      const V factor = hn::Set(d, inverse[i + r]);
      for (N v = 0; v < vectors; ++v) {
        hn::Store(hn::Mul(sums.at[r][v], factor), d,
                  cosines + (i + r) * s.padded + first + v * kLanes);
      }
    }
  };
  // All features of a small batch stay in L2; of a large one a block of samples does.
  const N chunk = s.padded * s.width <= kSmallBatch ? kRows : count;
  for (N begin = 0; begin < count; begin += chunk) {
    each_block(s.padded, [&](N first, auto vectors) {
      for (N i = begin; i < std::min(begin + chunk, count); i += kRows) {
        block_of_rows(i, first, vectors);
      }
    });
  }
}

void ToLogits(const Sizes& s, N count, Scaling scaling, float* cosines) {
  const D d;
  const V scale = hn::Set(d, scaling.scale), high = hn::Set(d, scaling.limit);
  const V low = hn::Set(d, -scaling.limit);
  for (N i = 0; i < count * s.padded; i += kLanes) {
    const V v = hn::Mul(hn::Load(d, cosines + i), scale);
    hn::Store(hn::Min(high, hn::Max(low, v)), d, cosines + i);  // in this order NaNs go on
  }
}

void LargestAndSum(const Sizes& s, N count, const float* logits, float* largest, float* sum) {
  const D d;
  for (N b = 0; b < s.padded; b += kLanes) {
    V top = hn::Set(d, -std::numeric_limits<float>::infinity());
    for (N i = 0; i < count; ++i) top = hn::Max(top, hn::Load(d, logits + i * s.padded + b));
    // Two sums: additions of one wait for each other. NaNs: Max may drop them, the sum keeps them.
    V even = hn::Zero(d), odd = hn::Zero(d);
    N i = 0;
    for (; i + 2 <= count; i += 2) {
      const float* const at = logits + i * s.padded + b;
      even = hn::Add(even, hn::Exp(d, hn::Sub(hn::Load(d, at), top)));
      odd = hn::Add(odd, hn::Exp(d, hn::Sub(hn::Load(d, at + s.padded), top)));
    }
    for (; i < count; ++i) {
      even = hn::Add(even, hn::Exp(d, hn::Sub(hn::Load(d, logits + i * s.padded + b), top)));
    }
    hn::Store(top, d, largest + b);
    hn::Store(hn::Add(even, odd), d, sum + b);
  }
}

void ToSlopes(const Sizes& s, N count, Scaling scaling, float factor, const float* log_sum,
              const float* inverse, float* cosines, float* along) {
  const D d;
  const V scale = hn::Set(d, scaling.scale), limit = hn::Set(d, scaling.limit);
  for (N i = 0; i < count; ++i) {
    const V weight = hn::Set(d, factor * inverse[i]);
    V sum = hn::Zero(d);
    float* const row = cosines + i * s.padded;
    for (N b = 0; b < s.padded; b += kLanes) {
      const V cosine = hn::Load(d, row + b);
      const V logit = hn::Mul(cosine, scale);
      const V p = hn::Mul(hn::Exp(d, hn::Sub(logit, hn::Load(d, log_sum + b))), weight);
      // A NaN is no clamped cosine: it goes on.
      const V slope = hn::IfThenElseZero(hn::Not(hn::Ge(hn::Abs(logit), limit)), p);
      sum = hn::MulAdd(slope, cosine, sum);
      hn::Store(slope, d, row + b);
    }
    along[i] = inverse[i] * hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// kWidth columns of the class centers by a block of samples; the rows' elements are broadcast.
template <N kWidth, N vectors>
HWY_INLINE void add_block(const float* const* rows, N count, N column, const float* slopes,
                          N stride, const float* const* next, float* sums) {
  const D d;
  V at[kWidth][vectors];
  for (N r = 0; r < kWidth; ++r) {
    for (N v = 0; v < vectors; ++v) at[r][v] = hn::Load(d, sums + r * stride + v * kLanes);
  }
  for (N i = 0; i < count; ++i) {
    const float* const row = rows[i] + column;
    if (next != nullptr) __builtin_prefetch(next[i] + column, 0, 2);
    V slope[vectors];
    for (N v = 0; v < vectors; ++v) slope[v] = hn::Load(d, slopes + v * kLanes);
    slopes += stride;
    for (N r = 0; r < kWidth; ++r) {
      const V value = hn::Set(d, row[r]);
      for (N v = 0; v < vectors; ++v) at[r][v] = hn::MulAdd(value, slope[v], at[r][v]);
    }
  }
  for (N r = 0; r < kWidth; ++r) {
    for (N v = 0; v < vectors; ++v) hn::Store(at[r][v], d, sums + r * stride + v * kLanes);
  }
}

void AddFeatureGradients(const Sizes& s, const float* const* rows, N count, const float* slopes,
                         const float* const* next, float* sums) {
  each_block(s.padded, [&](N first, auto vectors) {
    N fetched = 0;  // columns of `next` asked for already
    N column = 0;
    for (; column + kRows <= s.width; column += kRows) {
      const bool fetch = next != nullptr && first == 0 && column + kRows > fetched;
      if (fetch) fetched = column + kLine;
      add_block<kRows, vectors>(rows, count, column, slopes + first, s.padded,
                                fetch ? next : nullptr, sums + column * s.padded + first);
    }
    for (; column + 2 <= s.width; column += 2) {
      add_block<2, vectors>(rows, count, column, slopes + first, s.padded, nullptr,
                            sums + column * s.padded + first);
    }
    for (; column < s.width; ++column) {
      add_block<1, vectors>(rows, count, column, slopes + first, s.padded, nullptr,
                            sums + column * s.padded + first);
    }
  });
}

void RowGradients(const Sizes& s, const float* const* rows, N count, const float* by_row,
                  const float* slopes, const float* along, const float* const* next,
                  float* gradient, N stride) {
  const D d;
  const auto block_of_rows = [&](N i, N first, auto vectors) {
    const float* factors[kRows];
    for (N r = 0; r < kRows; ++r) factors[r] = slopes + (i + r) * s.padded;
    Sums<vectors> sums;
    multiply<vectors>(factors, s.batch, by_row + first * s.batch,
                      next != nullptr ? next + i : nullptr, first, sums);
    const bool inside = first + vectors * kLanes <= s.width;
    for (N r = 0; r < kRows; ++r) {
      const V factor = hn::Set(d, along[i + r]);
      for (N v = 0; v < vectors; ++v) {
        const N column = first + v * kLanes;
        V row;
        if (inside) {
          row = hn::LoadU(d, rows[i + r] + column);
        } else {
          HWY_ALIGN float tail[kLanes] = {};
          for (N k = 0; column + k < s.width && k < kLanes; ++k) tail[k] = rows[i + r][column + k];
          row = hn::Load(d, tail);
        }
        hn::Store(hn::NegMulAdd(factor, row, sums.at[r][v]), d,
                  gradient + (i + r) * stride + column);
      }
    }
  };
  each_block(whole_vectors(s.width), [&](N first, auto vectors) {
    for (N i = 0; i < count; i += kRows) block_of_rows(i, first, vectors);
  });
}

void Probabilities(float* values, const float* slopes, float factor, float log_sum, N n) {
  const D d;
  const V shift = hn::Set(d, log_sum), scale = hn::Set(d, factor);
  N i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V p = hn::Exp(d, hn::Sub(hn::LoadU(d, values + i), shift));
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, slopes + i), scale), p), d, values + i);
  }
  for (; i < n; ++i) {
    const float p = hn::GetLane(hn::Exp(d, hn::Set(d, values[i] - log_sum)));
    values[i] = slopes[i] * factor * p;
  }
}

N Lanes() {
  return kLanes;
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu::class_center
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu::class_center {

HWY_EXPORT(Lanes);
HWY_EXPORT(Pack);
HWY_EXPORT(InverseLengths);
HWY_EXPORT(Cosines);
HWY_EXPORT(ToLogits);
HWY_EXPORT(LargestAndSum);
HWY_EXPORT(ToSlopes);
HWY_EXPORT(AddFeatureGradients);
HWY_EXPORT(RowGradients);
HWY_EXPORT(Dot);
HWY_EXPORT(Probabilities);

TileFunctions tile_functions(const std::string& isa) {
  return {FTRAIN_SIMD(Lanes, isa)(),        FTRAIN_SIMD(Pack, isa),
          FTRAIN_SIMD(InverseLengths, isa), FTRAIN_SIMD(Cosines, isa),
          FTRAIN_SIMD(ToLogits, isa),       FTRAIN_SIMD(LargestAndSum, isa),
          FTRAIN_SIMD(ToSlopes, isa),       FTRAIN_SIMD(AddFeatureGradients, isa),
          FTRAIN_SIMD(RowGradients, isa),   FTRAIN_SIMD(Dot, isa),
          FTRAIN_SIMD(Probabilities, isa)};
}

}  // namespace ftrain::cpu::class_center
#endif
