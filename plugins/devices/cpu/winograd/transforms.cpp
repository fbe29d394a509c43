// The transforms of Winograd's F(4x4, 3x3), after Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks" (2015).
//
// The one-dimensional algorithm multiplies polynomials by their values at six points: 0, a, -a, b,
// -b and infinity. The usual a = 1, b = 2 spread the magnitudes of the 36 products widely; with
// 5/8 and 3/2 (Alam et al., "Winograd Convolution for Deep Neural Networks: Efficient Point
// Selection", 2022) rounding is several times finer, and their powers are still exact in binary.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/winograd/transforms.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/winograd/lanes-inl.h"
#include "plugins/devices/cpu/winograd/passes.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu::winograd {
namespace HWY_NAMESPACE {

namespace simd = ftrain::cpu::HWY_NAMESPACE;

constexpr float a1 = 0.625f, a2 = a1 * a1, a3 = a2 * a1;
constexpr float b1 = 1.5f, b2 = b1 * b1, b3 = b2 * b1;
// One over the product of the distances from a point to the other finite ones.
constexpr float of_0 = 1 / (a2 * b2), of_a = 1 / (2 * a2 * (a2 - b2)),
                of_b = 1 / (2 * b2 * (b2 - a2));

HWY_INLINE V set(float value) {
  return hn::Set(D(), value);
}

// Each of these is one direction of a transform, from `in` to `out` numbers. Short ones are for
// tiles of three results, which do without the point -b: what is left of a filter's points is the
// same, and the pixels make up for the distance to -b in a filter's scale.
struct Patch {  // pixels to points
  static constexpr std::size_t in = 6, out = 6;
  static HWY_INLINE void apply(const V* d, V* to) {
    const V even_a = hn::NegMulAdd(set(b2), d[2], d[4]), odd_a = hn::NegMulAdd(set(b2), d[1], d[3]);
    const V even_b = hn::NegMulAdd(set(a2), d[2], d[4]), odd_b = hn::NegMulAdd(set(a2), d[1], d[3]);
    to[0] = hn::MulAdd(set(a2 * b2), d[0], hn::NegMulAdd(set(a2 + b2), d[2], d[4]));
    to[1] = hn::MulAdd(set(a1), odd_a, even_a);
    to[2] = hn::NegMulAdd(set(a1), odd_a, even_a);
    to[3] = hn::MulAdd(set(b1), odd_b, even_b);
    to[4] = hn::NegMulAdd(set(b1), odd_b, even_b);
    to[5] = hn::MulAdd(set(a2 * b2), d[1], hn::NegMulAdd(set(a2 + b2), d[3], d[5]));
  }
};
struct ShortPatch {
  static constexpr std::size_t in = 5, out = 5;
  static HWY_INLINE void apply(const V* d, V* to) {
    const V e0 = hn::NegMulAdd(set(a2), d[0], d[2]), e1 = hn::NegMulAdd(set(a2), d[1], d[3]);
    const V e2 = hn::NegMulAdd(set(a2), d[2], d[4]);
    const V even = hn::NegMulAdd(set(b1), d[2], d[3]), odd = hn::NegMulAdd(set(b1), d[1], d[2]);
    to[0] = hn::Mul(set(b1), hn::NegMulAdd(set(b1), e0, e1));
    to[1] = hn::Mul(set(a1 + b1), hn::MulAdd(set(a1), odd, even));
    to[2] = hn::Mul(set(b1 - a1), hn::NegMulAdd(set(a1), odd, even));
    to[3] = hn::Mul(set(2 * b1), e1);
    to[4] = hn::NegMulAdd(set(b1), e1, e2);
  }
};

struct Result {  // points to results
  static constexpr std::size_t in = 6, out = 4;
  static HWY_INLINE void apply(const V* m, V* to) {
    const V sum_a = hn::Add(m[1], m[2]), difference_a = hn::Sub(m[1], m[2]);
    const V sum_b = hn::Add(m[3], m[4]), difference_b = hn::Sub(m[3], m[4]);
    to[0] = hn::Add(m[0], hn::Add(sum_a, sum_b));
    to[1] = hn::MulAdd(set(a1), difference_a, hn::Mul(set(b1), difference_b));
    to[2] = hn::MulAdd(set(a2), sum_a, hn::Mul(set(b2), sum_b));
    to[3] = hn::MulAdd(set(a3), difference_a, hn::MulAdd(set(b3), difference_b, m[5]));
  }
};
struct ShortResult {
  static constexpr std::size_t in = 5, out = 3;
  static HWY_INLINE void apply(const V* m, V* to) {
    const V sum = hn::Add(m[1], m[2]), difference = hn::Sub(m[1], m[2]);
    to[0] = hn::Add(m[0], hn::Add(sum, m[3]));
    to[1] = hn::MulAdd(set(a1), difference, hn::Mul(set(b1), m[3]));
    to[2] = hn::MulAdd(set(a2), sum, hn::MulAdd(set(b2), m[3], m[4]));
  }
};

struct Gradient {  // the transpose of Result
  static constexpr std::size_t in = 4, out = 6;
  static HWY_INLINE void apply(const V* y, V* to) {
    const V even_a = hn::MulAdd(set(a2), y[2], y[0]), even_b = hn::MulAdd(set(b2), y[2], y[0]);
    const V odd_a = hn::MulAdd(set(a2), y[3], y[1]), odd_b = hn::MulAdd(set(b2), y[3], y[1]);
    to[0] = y[0];
    to[1] = hn::MulAdd(set(a1), odd_a, even_a);
    to[2] = hn::NegMulAdd(set(a1), odd_a, even_a);
    to[3] = hn::MulAdd(set(b1), odd_b, even_b);
    to[4] = hn::NegMulAdd(set(b1), odd_b, even_b);
    to[5] = y[3];
  }
};
struct ShortGradient {
  static constexpr std::size_t in = 3, out = 5;
  static HWY_INLINE void apply(const V* y, V* to) {
    const V even = hn::MulAdd(set(a2), y[2], y[0]);
    to[0] = y[0];
    to[1] = hn::MulAdd(set(a1), y[1], even);
    to[2] = hn::NegMulAdd(set(a1), y[1], even);
    to[3] = hn::MulAdd(set(b1), y[1], hn::MulAdd(set(b2), y[2], y[0]));
    to[4] = y[2];
  }
};

struct Filter {  // taps to points
  static constexpr std::size_t in = 3, out = 6;
  static HWY_INLINE void apply(const V* g, V* to) {
    const V even_a = hn::Mul(set(of_a), hn::MulAdd(set(a2), g[2], g[0]));
    const V even_b = hn::Mul(set(of_b), hn::MulAdd(set(b2), g[2], g[0]));
    to[0] = hn::Mul(set(of_0), g[0]);
    to[1] = hn::MulAdd(set(of_a * a1), g[1], even_a);
    to[2] = hn::NegMulAdd(set(of_a * a1), g[1], even_a);
    to[3] = hn::MulAdd(set(of_b * b1), g[1], even_b);
    to[4] = hn::NegMulAdd(set(of_b * b1), g[1], even_b);
    to[5] = g[2];
  }
};
struct FilterGradient {  // the transpose of Filter
  static constexpr std::size_t in = 6, out = 3;
  static HWY_INLINE void apply(const V* u, V* to) {
    const V sum_a = hn::Mul(set(of_a), hn::Add(u[1], u[2]));
    const V sum_b = hn::Mul(set(of_b), hn::Add(u[3], u[4]));
    to[0] = hn::MulAdd(set(of_0), u[0], hn::Add(sum_a, sum_b));
    to[1] = hn::MulAdd(set(of_a * a1), hn::Sub(u[1], u[2]),
                       hn::Mul(set(of_b * b1), hn::Sub(u[3], u[4])));
    to[2] = hn::MulAdd(set(a2), sum_a, hn::MulAdd(set(b2), sum_b, u[5]));
  }
};

// Along columns and then along rows: load(row, column) and store(row, column, vector).
template <class Rows, class Columns, class Load, class Store>
HWY_INLINE void square(const Load& load, const Store& store) {
  HWY_ALIGN float half[Columns::out * Rows::in * lanes];
  const D d;
#pragma GCC unroll 6
  for (std::size_t i = 0; i < Rows::in; ++i) {
    V from[Columns::in], to[Columns::out];
#pragma GCC unroll 6
    for (std::size_t j = 0; j < Columns::in; ++j) from[j] = load(i, j);
    Columns::apply(from, to);
#pragma GCC unroll 6
    for (std::size_t j = 0; j < Columns::out; ++j) {
      hn::Store(to[j], d, half + (j * Rows::in + i) * lanes);
    }
  }
#pragma GCC unroll 6
  for (std::size_t j = 0; j < Columns::out; ++j) {
    V from[Rows::in], to[Rows::out];
#pragma GCC unroll 6
    for (std::size_t i = 0; i < Rows::in; ++i) {
      from[i] = hn::Load(d, half + (j * Rows::in + i) * lanes);
    }
    Rows::apply(from, to);
#pragma GCC unroll 6
    for (std::size_t i = 0; i < Rows::out; ++i) store(i, j, to[i]);
  }
}

// Which of the 36 points is in row i and column j of `rows` x `columns` of them?
template <std::size_t rows, std::size_t columns>
HWY_INLINE std::int64_t point_of(std::size_t i, std::size_t j) {
  const std::size_t row = rows == 5 && i == 4 ? 5 : i, column = columns == 5 && j == 4 ? 5 : j;
  return static_cast<std::int64_t>(row * 6 + column);
}

// f(sample, first row, first column, address of the first point) for each tile.
template <class T, class F>
HWY_INLINE void each_tile(const TileRun& t, const F& f) {
  std::int64_t column = t.first % t.tiles_wide, rest = t.first / t.tiles_wide;
  std::int64_t row = rest % t.tiles_high, sample = rest / t.tiles_high;
  for (std::int64_t i = 0; i < t.count; ++i) {
    const std::int64_t y = t.top + row * t.rows, x = t.left + column * t.columns;
    f(static_cast<T*>(t.image) + sample * t.sample_stride, y, x, t.at + i * wide);
    if (++column == t.tiles_wide) {
      column = 0;
      if (++row == t.tiles_high) row = 0, ++sample;
    }
  }
}

// Pixels to points, with zeros for the pixels outside of the image.
template <class T, class Rows, class Columns>
HWY_INLINE void to_points(const TileRun& t) {
  constexpr std::int64_t high = Rows::in, across = Columns::in;
  const std::int64_t pitch = t.width * wide;
  each_tile<const T>(t, [&](const T* image, std::int64_t y, std::int64_t x, float* at) {
    const D d;
    const bool inside = y >= 0 && x >= 0 && y + high <= t.height && x + across <= t.width;
    const T* const corner = image + (y * t.width + x) * wide;
    // What the tile below is going to need: its rows are too short for the processor to see it.
    for (std::int64_t row = high; row < high + tile_side; ++row) {
      const char* const below = reinterpret_cast<const char*>(corner + row * pitch);
      for (std::size_t byte = 0; byte < tile_side * block * sizeof(T); byte += 64) {
        hwy::Prefetch(below + byte);
      }
    }
    for (std::size_t p = 0; p < parts; ++p) {
      float* const to = at + p * lanes;
      const auto store = [&](std::size_t i, std::size_t j, V v) {
        hn::Store(v, d, to + point_of<Rows::out, Columns::out>(i, j) * t.point_stride);
      };
      const auto pixel = [&](std::size_t i, std::size_t j) {
        return simd::load_lanes(
            d, corner + static_cast<std::int64_t>(i) * pitch + j * block + p * lanes);
      };
      if (inside) {
        square<Rows, Columns>(pixel, store);
      } else {
        square<Rows, Columns>(
            [&](std::size_t i, std::size_t j) {
              const std::int64_t row = y + static_cast<std::int64_t>(i);
              const std::int64_t column = x + static_cast<std::int64_t>(j);
              const bool exists = row >= 0 && row < t.height && column >= 0 && column < t.width;
              return exists ? pixel(i, j) : hn::Zero(d);
            },
            store);
      }
    }
  });
}

// Points to results, of which those outside of the image are left out.
template <class T, class Rows, class Columns>
HWY_INLINE void from_points(const TileRun& t) {
  const std::int64_t pitch = t.width * wide;
  each_tile<T>(t, [&](T* image, std::int64_t y, std::int64_t x, float* at) {
    const D d;
    const std::int64_t rows = t.height - y, columns = t.width - x;
    T* const corner = image + (y * t.width + x) * wide;
    for (std::size_t p = 0; p < parts; ++p) {
      const float* const from = at + p * lanes;
      square<Rows, Columns>(
          [&](std::size_t i, std::size_t j) {
            return hn::Load(d, from + point_of<Rows::in, Columns::in>(i, j) * t.point_stride);
          },
          [&](std::size_t i, std::size_t j, V v) {
            if (static_cast<std::int64_t>(i) < rows && static_cast<std::int64_t>(j) < columns) {
              simd::store_lanes(
                  v, d, corner + static_cast<std::int64_t>(i) * pitch + j * block + p * lanes);
            }
          });
    }
  });
}

template <class T, class Long, class Short>
void any_to_points(const TileRun& t) {
  const bool high = t.rows == tile_side, across = t.columns == tile_side;
  if (high) {
    across ? to_points<T, Long, Long>(t) : to_points<T, Long, Short>(t);
  } else {
    across ? to_points<T, Short, Long>(t) : to_points<T, Short, Short>(t);
  }
}
template <class T>
void any_from_points(const TileRun& t) {
  const bool high = t.rows == tile_side, across = t.columns == tile_side;
  if (high) {
    across ? from_points<T, Result, Result>(t) : from_points<T, Result, ShortResult>(t);
  } else {
    across ? from_points<T, ShortResult, Result>(t) : from_points<T, ShortResult, ShortResult>(t);
  }
}

void patches(const TileRun& t) {
  t.bf16 ? any_to_points<BF16, Patch, ShortPatch>(t) : any_to_points<float, Patch, ShortPatch>(t);
}
void gradients(const TileRun& t) {
  t.bf16 ? any_to_points<BF16, Gradient, ShortGradient>(t)
         : any_to_points<float, Gradient, ShortGradient>(t);
}
void results(const TileRun& t) {
  t.bf16 ? any_from_points<BF16>(t) : any_from_points<float>(t);
}

void filters(const FilterBlock& t) {
  const D d;
  for (std::size_t k = 0; k < block * block; k += lanes) {
    square<Filter, Filter>(
        [&](std::size_t i, std::size_t j) {
          return hn::LoadU(d, t.filters + (i * 3 + j) * block * block + k);
        },
        [&](std::size_t i, std::size_t j, V v) {
          hn::Store(v, d, t.at + point_of<6, 6>(i, j) * t.point_stride + k);
        });
  }
}

void filter_gradients(const FilterBlock& t) {
  const D d;
  for (std::size_t k = 0; k < block * block; k += lanes) {
    square<FilterGradient, FilterGradient>(
        [&](std::size_t i, std::size_t j) {
          return hn::Load(d, t.at + point_of<6, 6>(i, j) * t.point_stride + k);
        },
        [&](std::size_t i, std::size_t j, V v) {
          float* const to = t.filters + (i * 3 + j) * block * block + k;
          hn::StoreU(t.add ? hn::Add(hn::LoadU(d, to), v) : v, d, to);
        });
  }
}

std::int64_t channels_in_block() {
  return wide;
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu::winograd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu::winograd {
namespace {

HWY_EXPORT(patches);
HWY_EXPORT(gradients);
HWY_EXPORT(results);
HWY_EXPORT(filters);
HWY_EXPORT(filter_gradients);
HWY_EXPORT(channels_in_block);

}  // namespace

void add_transforms(const std::string& isa, Passes& passes) {
  passes.patches = FTRAIN_SIMD(patches, isa);
  passes.gradients = FTRAIN_SIMD(gradients, isa);
  passes.results = FTRAIN_SIMD(results, isa);
  passes.filters = FTRAIN_SIMD(filters, isa);
  passes.filter_gradients = FTRAIN_SIMD(filter_gradients, isa);
  passes.block = FTRAIN_SIMD(channels_in_block, isa)();
}

}  // namespace ftrain::cpu::winograd
#endif
