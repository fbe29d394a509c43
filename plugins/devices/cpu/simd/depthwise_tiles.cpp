#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/depthwise_tiles.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "plugins/devices/cpu/simd/depthwise_tiles.h"
#include "plugins/devices/cpu/simd/lanes-inl.h"

#ifndef FTRAIN_SIMD_DEPTHWISE_RING
#define FTRAIN_SIMD_DEPTHWISE_RING
namespace ftrain::cpu {
// Rows that a window of three needs, with the next, a power of two.
inline constexpr std::int64_t ring_rows = 4;
inline std::int64_t ring_floats(std::int64_t width, std::int64_t block) {
  return (ring_rows + 1) * (width + 2) * block;
}
}  // namespace ftrain::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

// Swaps the lanes of each pair. Where a vector is a single lane, `neighbour` does it by address.
template <std::size_t block>
HWY_INLINE typename Row<block>::V swap_pairs(typename Row<block>::V v) {
#if HWY_TARGET == HWY_SCALAR
  return v;
#else
  return hn::Shuffle2301(v);
#endif
}
template <std::size_t block>
HWY_INLINE std::int64_t neighbour(std::int64_t lane) {
  return Row<block>::lanes == 1 ? lane ^ 1 : lane;
}

// One row of a source as f32.
template <std::size_t block, class T>
void take_row(const DepthwiseRows& source, std::int64_t row, std::int64_t width, float* to) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  const std::int64_t first = row * width * static_cast<std::int64_t>(block);
  const T* const x = static_cast<const T*>(source.x) + first;
  const auto each = [&](const auto& f) HWY_ATTR {
    for (std::int64_t column = 0; column < width; ++column) {
      for (std::size_t k = 0; k < R::parts; ++k) {
        const std::int64_t i =
            column * static_cast<std::int64_t>(block) + static_cast<std::int64_t>(k * R::lanes);
        hn::StoreU(f(i, k), d, to + i);
      }
    }
  };
  if (source.through == Through::nothing) {
    each([&](std::int64_t i, std::size_t) HWY_ATTR { return load_lanes(d, x + i); });
    return;
  }
  typename R::V mean[R::parts], factor[R::parts], beta[R::parts], slope[R::parts];
  load_row<block>(source.mean, mean);
  load_row<block>(source.factor, factor);
  load_row<block>(source.beta, beta);
  load_row<block>(source.slope, slope);
  if (source.through == Through::norm_prelu) {
    each([&](std::int64_t i, std::size_t k) HWY_ATTR {
      const auto z = hn::MulAdd(hn::Sub(load_lanes(d, x + i), mean[k]), factor[k], beta[k]);
      return hn::MulAdd(slope[k], hn::Min(z, zero), hn::Max(z, zero));
    });
    return;
  }
  const T* const at = static_cast<const T*>(source.at) + first;
  typename R::V along[R::parts], offset[R::parts];
  load_row<block>(source.along, along);
  load_row<block>(source.offset, offset);
  each([&](std::int64_t i, std::size_t k) HWY_ATTR {
    const auto dy = load_lanes(d, x + i);
    const auto centred = hn::Sub(load_lanes(d, at + i), mean[k]);
    const auto z = hn::MulAdd(centred, factor[k], beta[k]);
    const auto dz = hn::IfThenElse(hn::Gt(z, zero), dy, hn::Mul(dy, slope[k]));
    return hn::NegMulAdd(centred, along[k], hn::MulSub(dz, factor[k], offset[k]));
  });
}

// The last rows of a source, each with a column of zeros at either side, and a row of zeros.
template <std::size_t block, class T>
class Ring {
 public:
  Ring(const DepthwiseRows& source, std::int64_t height, std::int64_t width, float* memory)
      : source_(source),
        height_(height),
        width_(width),
        pitch_((width + 2) * static_cast<std::int64_t>(block)),
        memory_(memory) {
    for (std::int64_t slot = 0; slot < ring_rows; ++slot) {
      std::fill_n(memory_ + slot * pitch_, block, 0.0f);
      std::fill_n(memory_ + (slot + 1) * pitch_ - static_cast<std::int64_t>(block), block, 0.0f);
    }
    std::fill_n(memory_ + ring_rows * pitch_, pitch_, 0.0f);
  }

  // Column -1 of row `row`, which is not more than ring_rows before the last that was asked for.
  HWY_INLINE const float* row(std::int64_t row) {
    if (row < 0 || row >= height_) return memory_ + ring_rows * pitch_;
    for (; next_ <= row; ++next_) {
      take_row<block, T>(source_, next_, width_,
                         memory_ + next_ % ring_rows * pitch_ + static_cast<std::int64_t>(block));
    }
    return memory_ + row % ring_rows * pitch_;
  }

 private:
  const DepthwiseRows& source_;
  std::int64_t height_, width_, pitch_;
  float* memory_;
  std::int64_t next_ = 0;
};

// Outputs [column, column + count) of a row, lanes from `lane` on. Of `rows`, each at column -1.
template <std::size_t block, bool pairs, std::int64_t stride, std::size_t count, class T>
HWY_INLINE void convolve(const float* const* rows, const float* weight, T* y, std::int64_t column,
                         std::int64_t lane) {
  using R = Row<block>;
  const typename R::D d;
  constexpr std::int64_t wide = block;
  const std::int64_t other = neighbour<block>(lane);
  typename R::V own[count], across[count];
  for (std::size_t p = 0; p < count; ++p) own[p] = across[p] = hn::Zero(d);
  for (std::int64_t r = 0; r < 3; ++r) {
    for (std::int64_t s = 0; s < 3; ++s) {
      const float* const w = weight + (r * 3 + s) * wide;
      const float* const x = rows[r] + (column * stride + s) * wide;
      const auto w_own = hn::LoadU(d, w + lane);
      for (std::size_t p = 0; p < count; ++p) {
        const float* const at = x + static_cast<std::int64_t>(p) * stride * wide;
        own[p] = hn::MulAdd(hn::LoadU(d, at + lane), w_own, own[p]);
      }
      if constexpr (pairs) {
        const auto w_across = hn::LoadU(d, w + depthwise_taps * wide + other);
        for (std::size_t p = 0; p < count; ++p) {
          const float* const at = x + static_cast<std::int64_t>(p) * stride * wide;
          across[p] = hn::MulAdd(hn::LoadU(d, at + other), w_across, across[p]);
        }
      }
    }
  }
  for (std::size_t p = 0; p < count; ++p) {
    auto v = own[p];
    if constexpr (pairs) v = hn::Add(v, swap_pairs<block>(across[p]));
    store_lanes(v, d, y + (column + static_cast<std::int64_t>(p)) * wide + lane);
  }
}

template <std::size_t block, bool pairs, std::int64_t stride, class T>
void convolve_row(const float* const* rows, const float* weight, T* y, std::int64_t width) {
  using R = Row<block>;
  // Sums side by side, to hide the latency of additions. Widths are often multiples of 7.
  constexpr std::size_t together = HWY_TARGET == HWY_AVX3 ? 7 : 4;
  for (std::size_t k = 0; k < R::parts; ++k) {
    const auto lane = static_cast<std::int64_t>(k * R::lanes);
    std::int64_t column = 0;
    for (; column + static_cast<std::int64_t>(together) <= width; column += together) {
      convolve<block, pairs, stride, together>(rows, weight, y, column, lane);
    }
    for (; column + 2 <= width; column += 2) {
      convolve<block, pairs, stride, 2>(rows, weight, y, column, lane);
    }
    if (column < width) convolve<block, pairs, stride, 1>(rows, weight, y, column, lane);
  }
}

template <std::size_t block, bool pairs, std::int64_t stride, class T>
void forward_rows(const DepthwiseTile& t) {
  Ring<block, T> x(t.x, t.shape.height, t.shape.width, t.scratch);
  const std::int64_t pitch = t.shape.out_width * static_cast<std::int64_t>(block);
  for (std::int64_t row = 0; row < t.shape.out_height; ++row) {
    const float* rows[3];
    for (std::int64_t r = 0; r < 3; ++r) rows[r] = x.row(row * stride + r - 1);
    convolve_row<block, pairs, stride>(rows, t.weight, static_cast<T*>(t.y) + row * pitch,
                                       t.shape.out_width);
  }
}

// A row of dx with stride 2: the sum over `count` rows of dy (each at column -1), whose rows of
// taps, turned around, are in `taps`.
template <std::size_t block, class T>
void spread_row(const float* const* rows, const float* const* taps, std::int64_t count, T* dx,
                std::int64_t width) {
  using R = Row<block>;
  const typename R::D d;
  constexpr std::int64_t wide = block;
  for (std::size_t k = 0; k < R::parts; ++k) {
    const auto lane = static_cast<std::int64_t>(k * R::lanes);
    for (std::int64_t column = 0; column < width; column += 2) {
      auto even = hn::Zero(d), odd = even;
      for (std::int64_t r = 0; r < count; ++r) {
        const float* const dy = rows[r] + (column / 2 + 1) * wide + lane;
        const float* const w = taps[r] + lane;
        const auto here = hn::LoadU(d, dy);
        even = hn::MulAdd(here, hn::LoadU(d, w + wide), even);
        odd = hn::MulAdd(here, hn::LoadU(d, w), odd);
        odd = hn::MulAdd(hn::LoadU(d, dy + wide), hn::LoadU(d, w + 2 * wide), odd);
      }
      store_lanes(even, d, dx + column * wide + lane);
      if (column + 1 < width) store_lanes(odd, d, dx + (column + 1) * wide + lane);
    }
  }
}

// Adds a row's products to sums, [weight_rows][block]; `dy` and `rows` at column -1.
template <std::size_t block, bool pairs, std::int64_t stride>
void correlate_row(const float* dy, const float* const* rows, std::int64_t width, float* sums) {
  using R = Row<block>;
  const typename R::D d;
  constexpr std::int64_t wide = block;
  // As many sums as there are registers for.
  constexpr std::int64_t together = pairs && HWY_TARGET != HWY_AVX3 ? 1 : 3;
  for (std::size_t k = 0; k < R::parts; ++k) {
    const auto lane = static_cast<std::int64_t>(k * R::lanes);
    for (std::int64_t first = 0; first < 3; first += together) {
      float* const to = sums + first * 3 * wide + lane;
      typename R::V own[together * 3], across[together * 3];
      for (std::int64_t i = 0; i < together * 3; ++i) {
        own[i] = hn::LoadU(d, to + i * wide);
        if constexpr (pairs) across[i] = hn::LoadU(d, to + (depthwise_taps + i) * wide);
      }
      for (std::int64_t column = 0; column < width; ++column) {
        const float* const g = dy + (column + 1) * wide;
        const auto same = hn::LoadU(d, g + lane);
        auto swapped = same;
        if constexpr (pairs) swapped = swap_pairs<block>(hn::LoadU(d, g + neighbour<block>(lane)));
        for (std::int64_t r = 0; r < together; ++r) {
          const float* const x = rows[first + r] + column * stride * wide + lane;
          for (std::int64_t s = 0; s < 3; ++s) {
            const auto v = hn::LoadU(d, x + s * wide);
            own[r * 3 + s] = hn::MulAdd(same, v, own[r * 3 + s]);
            if constexpr (pairs) across[r * 3 + s] = hn::MulAdd(swapped, v, across[r * 3 + s]);
          }
        }
      }
      for (std::int64_t i = 0; i < together * 3; ++i) {
        hn::StoreU(own[i], d, to + i * wide);
        if constexpr (pairs) hn::StoreU(across[i], d, to + (depthwise_taps + i) * wide);
      }
    }
  }
}

template <std::size_t block, bool pairs, std::int64_t stride, class T>
void backward_rows(const DepthwiseTile& t) {
  const DepthwiseShape& shape = t.shape;
  constexpr std::int64_t wide = block, weight_rows = pairs ? 18 : 9;
  Ring<block, T> dy(t.dy, shape.out_height, shape.out_width, t.scratch);
  Ring<block, T> x(t.x, shape.height, shape.width, t.scratch + ring_floats(shape.out_width, wide));
  // Rows summed in float before they go to the doubles.
  const std::int64_t together = HWY_MAX(std::int64_t{1}, 128 / shape.out_width);
  HWY_ALIGN float sums[weight_rows * wide] = {};
  T* const dx = static_cast<T*>(t.dx);
  for (std::int64_t row = 0; row < shape.out_height; ++row) {
    if (dx != nullptr && stride == 1) {
      const float* rows[3];
      for (std::int64_t r = 0; r < 3; ++r) rows[r] = dy.row(row + r - 1);
      convolve_row<block, pairs, 1>(rows, t.weight, dx + row * shape.width * wide, shape.width);
    } else if (dx != nullptr) {
      const float* const rows[] = {dy.row(row), dy.row(row + 1)};
      const float* const middle[] = {t.weight + 3 * wide};
      const float* const outer[] = {t.weight, t.weight + 6 * wide};
      T* const to = dx + 2 * row * shape.width * wide;
      spread_row<block>(rows, middle, 1, to, shape.width);
      if (2 * row + 1 < shape.height) {
        spread_row<block>(rows, outer, 2, to + shape.width * wide, shape.width);
      }
    }
    if (t.sums == nullptr) continue;
    const float* rows[3];
    for (std::int64_t r = 0; r < 3; ++r) rows[r] = x.row(row * stride + r - 1);
    correlate_row<block, pairs, stride>(dy.row(row), rows, shape.out_width, sums);
    if ((row + 1) % together == 0 || row + 1 == shape.out_height) {
      for (std::int64_t w = 0; w < weight_rows; ++w) {
        double* const to = t.sums + w * t.sums_stride;
        for (std::int64_t i = 0; i < wide; ++i) to[i] += static_cast<double>(sums[w * wide + i]);
      }
      std::fill_n(sums, weight_rows * wide, 0.0f);
    }
  }
}

template <std::size_t block, class T>
void forward_type(const DepthwiseTile& t) {
  if (t.shape.pairs) return forward_rows<block, true, 1, T>(t);
  t.shape.stride == 1 ? forward_rows<block, false, 1, T>(t) : forward_rows<block, false, 2, T>(t);
}
template <std::size_t block, class T>
void backward_type(const DepthwiseTile& t) {
  if (t.shape.pairs) return backward_rows<block, true, 1, T>(t);
  t.shape.stride == 1 ? backward_rows<block, false, 1, T>(t) : backward_rows<block, false, 2, T>(t);
}

template <class T>
void forward_block(const DepthwiseTile& t) {
  t.shape.block == 16 ? forward_type<16, T>(t) : forward_type<8, T>(t);
}
template <class T>
void backward_block(const DepthwiseTile& t) {
  t.shape.block == 16 ? backward_type<16, T>(t) : backward_type<8, T>(t);
}

void depthwise_forward(const DepthwiseTile& t) {
  t.shape.bf16 ? forward_block<BF16>(t) : forward_block<float>(t);
}
void depthwise_backward(const DepthwiseTile& t) {
  t.shape.bf16 ? backward_block<BF16>(t) : backward_block<float>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(depthwise_forward);
HWY_EXPORT(depthwise_backward);

}  // namespace

std::size_t DepthwiseShape::scratch_floats() const {
  const std::int64_t floats = ring_floats(out_width, block) + ring_floats(width, block);
  return static_cast<std::size_t>((floats + 15) / 16 * 16);
}

DepthwiseFunctions depthwise_functions(const std::string& isa) {
  return {FTRAIN_SIMD(depthwise_forward, isa), FTRAIN_SIMD(depthwise_backward, isa)};
}

}  // namespace ftrain::cpu
#endif
