// Small helpers of the Highway functions, once for each target. Include after hwy/highway.h.
#if defined(FTRAIN_SIMD_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef FTRAIN_SIMD_LANES_INL_H
#undef FTRAIN_SIMD_LANES_INL_H
#else
#define FTRAIN_SIMD_LANES_INL_H
#endif

#include <cstddef>
#include <cstdint>

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

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();
#endif
