// Batch norm's passes forward: moments, the norm, and the norm with the moments of its result.
//
// Moments: every few hundred rows are taken about a shift near their own mean (that of their first
// rows), in float, and added in double as moments about zero: no cancellation in float whatever the
// mean.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/norm_forward_tiles.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/norm_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

// Adds the moments of rows to sum and square. at(row, k): part k of a row, and take(row, k) the
// same when it is asked for the one time that counts.
template <std::size_t block, class At, class Take>
HWY_INLINE void sum_rows(std::int64_t all_rows, double* to_sum, double* to_square, const At& at,
                         const Take& take) {
  using R = Row<block>;
  const typename R::D d;
  for (std::int64_t first = 0; first < all_rows; first += R::float_rows) {
    const std::int64_t rows = HWY_MIN(R::float_rows, all_rows - first);
    const std::int64_t probe = HWY_MIN(rows, 8);
    typename R::V shift[R::parts];
    for (std::size_t k = 0; k < R::parts; ++k) {
      shift[k] = hn::Zero(d);
      for (std::int64_t row = 0; row < probe; ++row) {
        shift[k] = hn::Add(shift[k], at(first + row, k));
      }
      shift[k] = hn::Mul(shift[k], hn::Set(d, 1.0f / static_cast<float>(probe)));
    }

    typename R::V sum[R::unroll][R::parts], square[R::unroll][R::parts];
    clear<block>(sum);
    clear<block>(square);
    const auto add = [&](std::int64_t row, std::size_t u) HWY_ATTR {
      for (std::size_t k = 0; k < R::parts; ++k) {
        const auto v = hn::Sub(take(first + row, k), shift[k]);
        sum[u][k] = hn::Add(sum[u][k], v);
        square[u][k] = hn::MulAdd(v, v, square[u][k]);
      }
    };
    std::int64_t row = 0;
    for (; row + static_cast<std::int64_t>(R::unroll) <= rows; row += R::unroll) {
      for (std::size_t u = 0; u < R::unroll; ++u) add(row + static_cast<std::int64_t>(u), u);
    }
    for (; row < rows; ++row) add(row, 0);

    double total[block] = {}, squares[block] = {};
    HWY_ALIGN float about[block];
    add_to_doubles<block>(sum, total);
    add_to_doubles<block>(square, squares);
    for (std::size_t k = 0; k < R::parts; ++k) hn::Store(shift[k], d, about + k * R::lanes);
    const double count = static_cast<double>(rows);
    for (std::size_t i = 0; i < block; ++i) {
      const double m = static_cast<double>(about[i]);
      to_sum[i] += total[i] + count * m;
      to_square[i] += squares[i] + 2 * m * total[i] + count * m * m;
    }
  }
}

template <std::size_t block, class T>
void moments_rows(const MomentsTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const T* const x = static_cast<const T*>(t.x);
  const auto at = [&](std::int64_t row, std::size_t k)
                      HWY_ATTR { return load_lanes(d, x + row * t.shape.stride + k * R::lanes); };
  sum_rows<block>(t.shape.rows, t.sum, t.square, at, at);
}

template <std::size_t block>
void moments_block(const MomentsTile& t) {
  t.shape.bf16 ? moments_rows<block, BF16>(t) : moments_rows<block, float>(t);
}

void moments_tile(const MomentsTile& t) {
  t.shape.block == 16 ? moments_block<16>(t) : moments_block<8>(t);
}

template <std::size_t block, After after, class T>
class Normal {
 public:
  using R = Row<block>;
  using V = typename R::V;

  HWY_INLINE explicit Normal(const NormTile& t)
      : x_(static_cast<const T*>(t.x)), other_(static_cast<const T*>(t.other)) {
    load_row<block>(t.mean, mean_);
    load_row<block>(t.factor, factor_);
    load_row<block>(t.beta, beta_);
    if constexpr (after == After::prelu) load_row<block>(t.slope, slope_);
  }

  // y at element `at`, which is in part k of its row.
  HWY_INLINE V operator()(std::int64_t at, std::size_t k) const {
    const typename R::D d;
    V y = hn::MulAdd(hn::Sub(load_lanes(d, x_ + at), mean_[k]), factor_[k], beta_[k]);
    if constexpr (after == After::prelu) {
      const V zero = hn::Zero(d);
      y = hn::MulAdd(slope_[k], hn::Min(y, zero), hn::Max(y, zero));
    }
    if constexpr (after == After::add) y = hn::Add(y, load_lanes(d, other_ + at));
    return y;
  }

 private:
  const T *x_, *other_;
  V mean_[R::parts], factor_[R::parts], beta_[R::parts], slope_[R::parts];
};

template <std::size_t block, After after, bool stream, class T>
void normalize_rows(const NormTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const Normal<block, after, T> normal(t);
  T* const y = static_cast<T*>(t.y);
  const auto take = [&](std::int64_t row) HWY_ATTR {
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t at = row * t.shape.stride + static_cast<std::int64_t>(k * R::lanes);
      if constexpr (stream) {
        stream_lanes(normal(at, k), d, y + at);
      } else {
        store_lanes(normal(at, k), d, y + at);
      }
    }
  };
  constexpr std::int64_t together = R::unroll;
  std::int64_t row = 0;
  for (; row + together <= t.shape.rows; row += together) {
    for (std::int64_t u = 0; u < together; ++u) take(row + u);
  }
  for (; row < t.shape.rows; ++row) take(row);
  if constexpr (stream) hwy::FlushStream();
}

template <std::size_t block, After after, class T>
void normalize_type(const NormTile& t) {
  t.stream ? normalize_rows<block, after, true, T>(t) : normalize_rows<block, after, false, T>(t);
}

template <std::size_t block, After after>
void normalize_block(const NormTile& t) {
  t.shape.bf16 ? normalize_type<block, after, BF16>(t) : normalize_type<block, after, float>(t);
}

template <std::size_t block>
void normalize_after(const NormTile& t) {
  switch (t.after) {
    case After::nothing:
      return normalize_block<block, After::nothing>(t);
    case After::prelu:
      return normalize_block<block, After::prelu>(t);
    case After::add:
      return normalize_block<block, After::add>(t);
  }
}

void normalize_tile(const NormTile& t) {
  t.shape.block == 16 ? normalize_after<16>(t) : normalize_after<8>(t);
}

template <std::size_t block, After after, class T>
void normalize_and_sum_rows(const NormTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const Normal<block, after, T> normal(t);
  T* const y = static_cast<T*>(t.y);
  const auto value = [&](std::int64_t row, std::size_t k) HWY_ATTR {
    return normal(row * t.shape.stride + static_cast<std::int64_t>(k * R::lanes), k);
  };
  const auto take = [&](std::int64_t row, std::size_t k) HWY_ATTR {
    const std::int64_t at = row * t.shape.stride + static_cast<std::int64_t>(k * R::lanes);
    return store_rounded(normal(at, k), d, y + at);
  };
  sum_rows<block>(t.shape.rows, t.sum, t.square, value, take);
}

template <std::size_t block, After after>
void normalize_and_sum_block(const NormTile& t) {
  t.shape.bf16 ? normalize_and_sum_rows<block, after, BF16>(t)
               : normalize_and_sum_rows<block, after, float>(t);
}

template <std::size_t block>
void normalize_and_sum_after(const NormTile& t) {
  t.after == After::prelu ? normalize_and_sum_block<block, After::prelu>(t)
                          : normalize_and_sum_block<block, After::add>(t);
}

void normalize_and_sum_tile(const NormTile& t) {
  t.shape.block == 16 ? normalize_and_sum_after<16>(t) : normalize_and_sum_after<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(moments_tile);
HWY_EXPORT(normalize_tile);
HWY_EXPORT(normalize_and_sum_tile);

}  // namespace

NormForward norm_forward(const std::string& isa) {
  return {FTRAIN_SIMD(moments_tile, isa), FTRAIN_SIMD(normalize_tile, isa),
          FTRAIN_SIMD(normalize_and_sum_tile, isa)};
}

}  // namespace ftrain::cpu
#endif
