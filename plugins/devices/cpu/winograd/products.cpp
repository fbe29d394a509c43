// The matrix products of Winograd's convolutions: register blocks of rows x vectors.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/winograd/products.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/winograd/lanes-inl.h"
#include "plugins/devices/cpu/winograd/passes.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu::winograd {
namespace HWY_NAMESPACE {

// How many rows of how many column blocks the registers hold, and the depth of a panel that stays
// in the first cache.
constexpr bool many_registers = wide >= 16;
constexpr std::size_t product_rows = many_registers ? 12 : parts == 1 ? 6 : parts == 2 ? 3 : 1;
constexpr std::size_t product_columns = 2;
constexpr std::size_t sum_rows = many_registers ? 8 : parts == 1 ? 4 : parts == 2 ? 2 : 1;
constexpr std::size_t sum_columns = many_registers || parts == 1 ? 3 : 2;
constexpr std::int64_t panel_depth = many_registers ? 128 : 256;
constexpr std::int64_t panel_tiles = 128;

// A block of results in registers: rows of `block` floats, and columns `stride` apart.
template <std::size_t rows, std::size_t columns>
struct Accumulators {
  V sum[rows][columns][parts];

  HWY_INLINE void start(const float* out, std::int64_t stride, bool add) {
    const D d;
#pragma GCC unroll 16
    for (std::size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (std::size_t c = 0; c < columns; ++c) {
#pragma GCC unroll 16
        for (std::size_t p = 0; p < parts; ++p) {
          const float* const at =
              out + static_cast<std::int64_t>(c) * stride + r * block + p * lanes;
          sum[r][c][p] = add ? hn::Load(d, at) : hn::Zero(d);
        }
      }
    }
  }
  HWY_INLINE void finish(float* out, std::int64_t stride) const {
    const D d;
#pragma GCC unroll 16
    for (std::size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (std::size_t c = 0; c < columns; ++c) {
#pragma GCC unroll 16
        for (std::size_t p = 0; p < parts; ++p) {
          hn::Store(sum[r][c][p], d,
                    out + static_cast<std::int64_t>(c) * stride + r * block + p * lanes);
        }
      }
    }
  }
  // a: one factor a row, `a_apart` from row to row; b: a vector a column, `b_apart` likewise.
  HWY_INLINE void step(const float* a, std::size_t a_apart, const float* b, std::int64_t b_apart) {
    const D d;
    V vector[columns][parts];
#pragma GCC unroll 4
    for (std::size_t c = 0; c < columns; ++c) {
#pragma GCC unroll 16
      for (std::size_t p = 0; p < parts; ++p) {
        vector[c][p] = hn::Load(d, b + static_cast<std::int64_t>(c) * b_apart + p * lanes);
      }
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < rows; ++r) {
      const V factor = hn::Set(d, a[r * a_apart]);
#pragma GCC unroll 4
      for (std::size_t c = 0; c < columns; ++c) {
#pragma GCC unroll 16
        for (std::size_t p = 0; p < parts; ++p) {
          sum[r][c][p] = hn::MulAdd(factor, vector[c][p], sum[r][c][p]);
        }
      }
    }
  }
};

template <std::size_t rows, std::size_t columns>
void multiply_block(const Product& t, const float* a, const float* b, float* out,
                    std::int64_t depth, bool add) {
  Accumulators<rows, columns> sums;
  sums.start(out, t.out_stride, add);
  for (std::int64_t k = 0; k < depth; ++k) {
    for (std::size_t lane = 0; lane < block; lane += 4) {
#pragma GCC unroll 4
      for (std::size_t i = lane; i < lane + 4; ++i) {
        sums.step(a + i, block, b + i * block, t.b_stride);
      }
    }
    a += t.a_stride;
    b += block * block;
  }
  sums.finish(out, t.out_stride);
}

template <std::size_t rows, std::size_t columns>
HWY_INLINE void multiply_rows(const Product& t, const float* a, const float* b, float* out,
                              std::int64_t count, std::int64_t depth, bool add) {
  if constexpr (rows > 0) {
    if (count == static_cast<std::int64_t>(rows)) {
      multiply_block<rows, columns>(t, a, b, out, depth, add);
    } else {
      multiply_rows<rows - 1, columns>(t, a, b, out, count, depth, add);
    }
  }
}

template <std::size_t columns>
void multiply_panel(const Product& t, const float* b, float* out) {
  constexpr std::int64_t most = product_rows, step = HWY_MAX(1, panel_depth / wide);
  for (std::int64_t k = 0; k < t.depth; k += step) {
    const std::int64_t depth = HWY_MIN(step, t.depth - k);
    const float* const a = t.a + k * t.a_stride;
    const float* const panel = b + k * wide * wide;
    std::int64_t row = 0;
    for (; row + most <= t.rows; row += most) {
      multiply_block<product_rows, columns>(t, a + row * wide, panel, out + row * wide, depth,
                                            k > 0);
    }
    multiply_rows<product_rows - 1, columns>(t, a + row * wide, panel, out + row * wide,
                                             t.rows - row, depth, k > 0);
  }
}

void multiply(const Product& t) {
  std::int64_t column = 0;
  for (; column + 2 <= t.columns; column += 2) {
    multiply_panel<2>(t, t.b + column * t.b_stride, t.out + column * t.out_stride);
  }
  if (column < t.columns) {
    multiply_panel<1>(t, t.b + column * t.b_stride, t.out + column * t.out_stride);
  }
}

template <std::size_t columns>
void correlate_panel(const Correlation& t, const float* b, float* out) {
  std::int64_t k = 0;
  do {  // once at least, for zeros where there are no tiles
    const std::int64_t depth = HWY_MIN(panel_tiles, t.depth - k);
    for (std::int64_t row = 0; row < t.rows; ++row) {
      for (std::size_t lane = 0; lane < block; lane += sum_rows) {
        const float* x = t.a + row * t.a_stride + k * wide + lane;
        const float* y = b + k * wide;
        float* const to = out + (row * wide + static_cast<std::int64_t>(lane)) * wide;
        Accumulators<sum_rows, columns> sums;
        sums.start(to, t.out_stride, k > 0);
#pragma GCC unroll 2
        for (std::int64_t i = 0; i < depth; ++i, x += block, y += block) {
          sums.step(x, 1, y, t.b_stride);
        }
        sums.finish(to, t.out_stride);
      }
    }
    k += panel_tiles;
  } while (k < t.depth);
}

void correlate(const Correlation& t) {
  constexpr std::int64_t most = sum_columns;
  std::int64_t column = 0;
  while (column < t.columns) {
    const std::int64_t left = t.columns - column;
    // Not three and one but two and two.
    const std::int64_t taken = left >= most && left != 4 ? most : HWY_MIN(left, 2);
    const float* const b = t.b + column * t.b_stride;
    float* const out = t.out + column * t.out_stride;
    if constexpr (sum_columns == 3) {
      if (taken == 3) correlate_panel<3>(t, b, out);
    }
    if (taken == 2) correlate_panel<2>(t, b, out);
    if (taken == 1) correlate_panel<1>(t, b, out);
    column += taken;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu::winograd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu::winograd {
namespace {

HWY_EXPORT(multiply);
HWY_EXPORT(correlate);

}  // namespace

void add_products(const std::string& isa, Passes& passes) {
  passes.multiply = FTRAIN_SIMD(multiply, isa);
  passes.correlate = FTRAIN_SIMD(correlate, isa);
}

}  // namespace ftrain::cpu::winograd
#endif
