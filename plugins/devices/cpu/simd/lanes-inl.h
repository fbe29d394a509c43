// Small helpers of the Highway functions, once for each target. Include after hwy/highway.h.
#if defined(FTRAIN_SIMD_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef FTRAIN_SIMD_LANES_INL_H
#undef FTRAIN_SIMD_LANES_INL_H
#else
#define FTRAIN_SIMD_LANES_INL_H
#endif

#include <cstddef>
#include <cstdint>

#include "ftrain/base/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A row of `block` floats as `parts` vectors of `lanes`.
template <std::size_t block>
struct Row {
  using D = hn::CappedTag<float, block>;
  using V = hn::Vec<D>;
  static constexpr std::size_t lanes = hn::MaxLanes(D());
  static constexpr std::size_t parts = block / lanes;
  // Rows to sum side by side, to hide the latency of additions.
  static constexpr std::size_t unroll = parts >= 4 ? 1 : 4 / parts;
  // Sums are taken in float over at most this many rows (64 additions each) and then added to
  // doubles.
  static constexpr std::int64_t float_rows = 64 * static_cast<std::int64_t>(unroll);
};

// Adds sum[u][k], over u, to total[lane].
template <std::size_t block>
HWY_INLINE void add_to_doubles(
    const typename Row<block>::V (&sum)[Row<block>::unroll][Row<block>::parts], double* total) {
  const typename Row<block>::D d;
  HWY_ALIGN float lane[block];
  for (std::size_t k = 0; k < Row<block>::parts; ++k) {
    typename Row<block>::V all = sum[0][k];
    for (std::size_t u = 1; u < Row<block>::unroll; ++u) all = hn::Add(all, sum[u][k]);
    hn::Store(all, d, lane + k * Row<block>::lanes);
  }
  for (std::size_t i = 0; i < block; ++i) total[i] += static_cast<double>(lane[i]);
}

template <std::size_t block>
HWY_INLINE void clear(typename Row<block>::V (&sum)[Row<block>::unroll][Row<block>::parts]) {
  for (std::size_t u = 0; u < Row<block>::unroll; ++u) {
    for (std::size_t k = 0; k < Row<block>::parts; ++k) {
      sum[u][k] = hn::Zero(typename Row<block>::D());
    }
  }
}

template <std::size_t block>
HWY_INLINE void load_row(const float* from, typename Row<block>::V (&row)[Row<block>::parts]) {
  for (std::size_t k = 0; k < Row<block>::parts; ++k) {
    row[k] = hn::LoadU(typename Row<block>::D(), from + k * Row<block>::lanes);
  }
}

// Lanes of f32 from and to memory of float or BF16. Rounding is that of to_bf16(), NaNs included.
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const BF16* from) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

// The lanes' bf16 bits.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<std::uint16_t, D>> bf16_bits([[maybe_unused]] D d, hn::Vec<D> v) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto bits = hn::BitCast(d32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(d32, 0x7fff)), odd);
  const auto nan = hn::Or(bits, hn::Set(d32, 0x400000));
  const auto kept = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), nan, rounded);
  return hn::TruncateTo(d16, hn::ShiftRight<16>(kept));
}

template <class D>
HWY_INLINE void store_lanes(hn::Vec<D> v, D d, float* to) {
  hn::StoreU(v, d, to);
}
template <class D>
HWY_INLINE void store_lanes(hn::Vec<D> v, D d, BF16* to) {
  const hn::Rebind<std::uint16_t, D> d16;
  hn::StoreU(bf16_bits(d, v), d16, reinterpret_cast<std::uint16_t*>(to));
}

// Stores and returns what is then in memory.
template <class D>
HWY_INLINE hn::Vec<D> store_rounded(hn::Vec<D> v, D d, float* to) {
  hn::StoreU(v, d, to);
  return v;
}
template <class D>
HWY_INLINE hn::Vec<D> store_rounded(hn::Vec<D> v, D d, BF16* to) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto bits = bf16_bits(d, v);
  hn::StoreU(bits, d16, reinterpret_cast<std::uint16_t*>(to));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

// As store_lanes(), past the caches, to aligned addresses. End with hwy::FlushStream().
template <class D>
HWY_INLINE void stream_lanes(hn::Vec<D> v, D d, float* to) {
  hn::Stream(v, d, to);
}
template <class D>
HWY_INLINE void stream_lanes(hn::Vec<D> v, D d, BF16* to) {
  // Half an SSE register cannot be streamed.
  if constexpr (hn::MaxLanes(D()) * sizeof(BF16) < 16) {
    store_lanes(v, d, to);
  } else {
    const hn::Rebind<std::uint16_t, D> d16;
    hn::Stream(bf16_bits(d, v), d16, reinterpret_cast<std::uint16_t*>(to));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();
#endif
