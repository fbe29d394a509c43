// Batch norm's passes backward: the sums over a group, the gradient of x, and a gradient (or a sum
// of two) together with the sums of the norm that it goes into. With a PReLU behind the norm, its
// input z is computed again from x.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/norm_backward_tiles.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/norm_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

// Adds to t's sums. dy(row, k) is part k of a row of dy, asked for once.
template <std::size_t block, bool prelu, class T, class Dy>
HWY_INLINE void sum_rows(const NormSumsTile& t, const Dy& dy_at) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  const T* const x = static_cast<const T*>(t.x);
  typename R::V mean[R::parts], factor[R::parts], beta[R::parts], slope[R::parts];
  load_row<block>(t.mean, mean);
  if constexpr (prelu) {
    load_row<block>(t.factor, factor);
    load_row<block>(t.beta, beta);
    load_row<block>(t.slope, slope);
  }
  for (std::int64_t first = 0; first < t.shape.rows; first += R::float_rows) {
    const std::int64_t rows = HWY_MIN(R::float_rows, t.shape.rows - first);
    typename R::V sum[R::unroll][R::parts], product[R::unroll][R::parts],
        slopes[R::unroll][R::parts];
    clear<block>(sum);
    clear<block>(product);
    clear<block>(slopes);
    const auto take = [&](std::int64_t row, std::size_t u) HWY_ATTR {
      for (std::size_t k = 0; k < R::parts; ++k) {
        const std::int64_t at = row * t.shape.stride + static_cast<std::int64_t>(k * R::lanes);
        auto dz = dy_at(at, k);
        const auto centred = hn::Sub(load_lanes(d, x + at), mean[k]);
        if constexpr (prelu) {
          const auto z = hn::MulAdd(centred, factor[k], beta[k]);
          slopes[u][k] = hn::MulAdd(dz, hn::Min(z, zero), slopes[u][k]);
          dz = hn::IfThenElse(hn::Gt(z, zero), dz, hn::Mul(dz, slope[k]));
        }
        sum[u][k] = hn::Add(sum[u][k], dz);
        product[u][k] = hn::MulAdd(dz, centred, product[u][k]);
      }
    };
    std::int64_t row = 0;
    for (; row + static_cast<std::int64_t>(R::unroll) <= rows; row += R::unroll) {
      for (std::size_t u = 0; u < R::unroll; ++u) {
        take(first + row + static_cast<std::int64_t>(u), u);
      }
    }
    for (; row < rows; ++row) take(first + row, 0);
    add_to_doubles<block>(sum, t.sum);
    add_to_doubles<block>(product, t.product);
    if constexpr (prelu) add_to_doubles<block>(slopes, t.slope_sum);
  }
}

template <std::size_t block, bool prelu, class T>
void sum_type(const NormSumsTile& t) {
  const typename Row<block>::D d;
  const T* const dy = static_cast<const T*>(t.dy);
  sum_rows<block, prelu, T>(
      t, [&](std::int64_t at, std::size_t) HWY_ATTR { return load_lanes(d, dy + at); });
}

template <std::size_t block>
void sum_block(const NormSumsTile& t) {
  if (t.shape.bf16)
    return t.prelu ? sum_type<block, true, BF16>(t) : sum_type<block, false, BF16>(t);
  t.prelu ? sum_type<block, true, float>(t) : sum_type<block, false, float>(t);
}

void norm_sums_tile(const NormSumsTile& t) {
  t.shape.block == 16 ? sum_block<16>(t) : sum_block<8>(t);
}

template <std::size_t block, After after, class T>
class Gradient {
 public:
  using R = Row<block>;
  using V = typename R::V;

  HWY_INLINE explicit Gradient(const NormGradTile& t)
      : dy_(static_cast<const T*>(t.dy)),
        x_(static_cast<const T*>(t.x)),
        other_(static_cast<const T*>(t.other)) {
    load_row<block>(t.mean, mean_);
    load_row<block>(t.factor, factor_);
    load_row<block>(t.along, along_);
    load_row<block>(t.offset, offset_);
    if constexpr (after == After::prelu) {
      load_row<block>(t.beta, beta_);
      load_row<block>(t.slope, slope_);
    }
  }

  HWY_INLINE V operator()(std::int64_t at, std::size_t k) const {
    const typename R::D d;
    V dz = load_lanes(d, dy_ + at);
    const V centred = hn::Sub(load_lanes(d, x_ + at), mean_[k]);
    if constexpr (after == After::prelu) {
      const V z = hn::MulAdd(centred, factor_[k], beta_[k]);
      dz = hn::IfThenElse(hn::Gt(z, hn::Zero(d)), dz, hn::Mul(dz, slope_[k]));
    }
    V dx = hn::MulSub(dz, factor_[k], offset_[k]);
    dx = hn::NegMulAdd(centred, along_[k], dx);
    if constexpr (after == After::add) dx = hn::Add(dx, load_lanes(d, other_ + at));
    return dx;
  }

 private:
  const T *dy_, *x_, *other_;
  V mean_[R::parts], factor_[R::parts], along_[R::parts], offset_[R::parts];
  V beta_[R::parts], slope_[R::parts];
};

template <std::size_t block, After after, bool stream, class T>
void gradient_rows(const NormGradTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const Gradient<block, after, T> gradient(t);
  T* const dx = static_cast<T*>(t.dx);
  const auto take = [&](std::int64_t row) HWY_ATTR {
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t at = row * t.shape.stride + static_cast<std::int64_t>(k * R::lanes);
      if constexpr (stream) {
        stream_lanes(gradient(at, k), d, dx + at);
      } else {
        store_lanes(gradient(at, k), d, dx + at);
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
void gradient_type(const NormGradTile& t) {
  t.stream ? gradient_rows<block, after, true, T>(t) : gradient_rows<block, after, false, T>(t);
}

template <std::size_t block, After after>
void gradient_block(const NormGradTile& t) {
  t.shape.bf16 ? gradient_type<block, after, BF16>(t) : gradient_type<block, after, float>(t);
}

template <std::size_t block>
void gradient_after(const NormGradTile& t) {
  switch (t.after) {
    case After::nothing:
      return gradient_block<block, After::nothing>(t);
    case After::prelu:
      return gradient_block<block, After::prelu>(t);
    case After::add:
      return gradient_block<block, After::add>(t);
  }
}

void norm_gradient_tile(const NormGradTile& t) {
  t.shape.block == 16 ? gradient_after<16>(t) : gradient_after<8>(t);
}

template <std::size_t block, bool prelu, class T>
void pair_rows(const GradAndSumsTile& t) {
  using R = Row<block>;
  const typename R::D d;
  T* const to = static_cast<T*>(t.grad.dx);
  if (t.through_norm) {
    const Gradient<block, After::add, T> gradient(t.grad);
    sum_rows<block, prelu, T>(t.sums, [&](std::int64_t at, std::size_t k) HWY_ATTR {
      return store_rounded(gradient(at, k), d, to + at);
    });
  } else {
    const T* const a = static_cast<const T*>(t.grad.dy);
    const T* const b = static_cast<const T*>(t.grad.other);
    sum_rows<block, prelu, T>(t.sums, [&](std::int64_t at, std::size_t) HWY_ATTR {
      return store_rounded(hn::Add(load_lanes(d, a + at), load_lanes(d, b + at)), d, to + at);
    });
  }
}

template <std::size_t block>
void pair_block(const GradAndSumsTile& t) {
  if (t.sums.shape.bf16) {
    return t.sums.prelu ? pair_rows<block, true, BF16>(t) : pair_rows<block, false, BF16>(t);
  }
  t.sums.prelu ? pair_rows<block, true, float>(t) : pair_rows<block, false, float>(t);
}

void gradient_and_sums_tile(const GradAndSumsTile& t) {
  t.sums.shape.block == 16 ? pair_block<16>(t) : pair_block<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(norm_sums_tile);
HWY_EXPORT(norm_gradient_tile);
HWY_EXPORT(gradient_and_sums_tile);

}  // namespace

NormBackward norm_backward(const std::string& isa) {
  return {FTRAIN_SIMD(norm_sums_tile, isa), FTRAIN_SIMD(norm_gradient_tile, isa),
          FTRAIN_SIMD(gradient_and_sums_tile, isa)};
}

}  // namespace ftrain::cpu
#endif
