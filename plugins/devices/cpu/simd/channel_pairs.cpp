// Convolutions in groups of two channels, 3x3 with stride 1 and padding 1, on channel blocks:
// MobileFaceNet's second layer, whose groups are too narrow for a register of their own.
//
// With two channels a group, output lane c takes input lanes c and c^1 (the other of its pair). So
// for every tap two products with the same input vector are summed, one for the own lane and one
// for the neighbour's, and the second sum is swapped within pairs once at the end. The gradient of
// x is the same with the taps turned around.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/channel_pairs.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/reduce.h"

#ifndef FTRAIN_SIMD_PAIRS_TILE
#define FTRAIN_SIMD_PAIRS_TILE
namespace ftrain::cpu {
inline constexpr std::int64_t taps = 9;
// own and across are [taps][block], by input lane.
struct PairsTile {
  const float *x = nullptr, *own = nullptr, *across = nullptr;
  float* y = nullptr;
  std::int64_t height = 0, width = 0, block = 0;
};
// sums: [2 taps] rows of block lanes, `stride` apart: own taps, then those across; added to.
struct PairsGradTile {
  const float *dy = nullptr, *x = nullptr;
  double* sums = nullptr;
  std::int64_t stride = 0, height = 0, width = 0, block = 0;
};
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

// Outputs [column, column + count) of a row, taps [first, last) of each of its three input rows
// (nullptr: outside the image), lanes from `lane` on.
template <std::size_t block, std::size_t count>
HWY_INLINE void convolve(const float* const* rows, const PairsTile& t, float* y,
                         std::int64_t column, std::int64_t lane, std::int64_t first,
                         std::int64_t last) {
  using R = Row<block>;
  const typename R::D d;
  const std::int64_t other = neighbour<block>(lane), wide = static_cast<std::int64_t>(block);
  typename R::V own[count], across[count];
  for (std::size_t p = 0; p < count; ++p) own[p] = across[p] = hn::Zero(d);
  for (std::int64_t r = 0; r < 3; ++r) {
    if (rows[r] == nullptr) continue;
    for (std::int64_t s = first; s < last; ++s) {
      const auto w_own = hn::LoadU(d, t.own + (r * 3 + s) * wide + lane);
      const auto w_across = hn::LoadU(d, t.across + (r * 3 + s) * wide + other);
      const float* const x = rows[r] + (column + s - 1) * wide;
      for (std::size_t p = 0; p < count; ++p) {
        const float* const at = x + static_cast<std::int64_t>(p) * wide;
        own[p] = hn::MulAdd(hn::LoadU(d, at + lane), w_own, own[p]);
        across[p] = hn::MulAdd(hn::LoadU(d, at + other), w_across, across[p]);
      }
    }
  }
  for (std::size_t p = 0; p < count; ++p) {
    hn::StoreU(hn::Add(own[p], swap_pairs<block>(across[p])), d,
               y + (column + static_cast<std::int64_t>(p)) * wide + lane);
  }
}

template <std::size_t block>
void convolve_rows(const PairsTile& t) {
  using R = Row<block>;
  const std::int64_t pitch = t.width * static_cast<std::int64_t>(block), end = t.width - 1;
  constexpr std::size_t side_by_side = 4;
  for (std::int64_t row = 0; row < t.height; ++row) {
    const float* const x = t.x + row * pitch;
    const float* const rows[] = {row > 0 ? x - pitch : nullptr, x,
                                 row + 1 < t.height ? x + pitch : nullptr};
    float* const y = t.y + row * pitch;
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t lane = static_cast<std::int64_t>(k * R::lanes);
      convolve<block, 1>(rows, t, y, 0, lane, 1, t.width > 1 ? 3 : 2);
      std::int64_t column = 1;
      for (; column + static_cast<std::int64_t>(side_by_side) <= end; column += side_by_side) {
        convolve<block, side_by_side>(rows, t, y, column, lane, 0, 3);
      }
      for (; column < end; ++column) convolve<block, 1>(rows, t, y, column, lane, 0, 3);
      if (t.width > 1) convolve<block, 1>(rows, t, y, end, lane, 0, 2);
    }
  }
}

void pairs_tile(const PairsTile& t) {
  t.block == 16 ? convolve_rows<16>(t) : convolve_rows<8>(t);
}

// Adds one column's products to the sums of one row of taps.
template <std::size_t block>
HWY_INLINE void correlate(const float* dy, const float* x, std::int64_t column, std::int64_t lane,
                          std::int64_t first, std::int64_t last, typename Row<block>::V* own,
                          typename Row<block>::V* across) {
  const typename Row<block>::D d;
  const std::int64_t wide = static_cast<std::int64_t>(block);
  const auto same = hn::LoadU(d, dy + column * wide + lane);
  const auto swapped = swap_pairs<block>(hn::LoadU(d, dy + column * wide + neighbour<block>(lane)));
  for (std::int64_t s = first; s < last; ++s) {
    const auto v = hn::LoadU(d, x + (column + s - 1) * wide + lane);
    own[s] = hn::MulAdd(same, v, own[s]);
    across[s] = hn::MulAdd(swapped, v, across[s]);
  }
}

template <std::size_t block>
void correlate_rows(const PairsGradTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const std::int64_t pitch = t.width * static_cast<std::int64_t>(block), end = t.width - 1;
  // Rows summed in float before they go to the doubles.
  const std::int64_t together = HWY_MAX(std::int64_t{1}, 128 / t.width);
  for (std::int64_t r = 0; r < 3; ++r) {
    const std::int64_t top = r == 0 ? 1 : 0, bottom = r == 2 ? t.height - 1 : t.height;
    for (std::int64_t from = top; from < bottom; from += together) {
      const std::int64_t to = HWY_MIN(bottom, from + together);
      for (std::size_t k = 0; k < R::parts; ++k) {
        const std::int64_t lane = static_cast<std::int64_t>(k * R::lanes);
        typename R::V own[3] = {hn::Zero(d), hn::Zero(d), hn::Zero(d)};
        typename R::V across[3] = {hn::Zero(d), hn::Zero(d), hn::Zero(d)};
        for (std::int64_t row = from; row < to; ++row) {
          const float* const dy = t.dy + row * pitch;
          const float* const x = t.x + (row + r - 1) * pitch;
          correlate<block>(dy, x, 0, lane, 1, t.width > 1 ? 3 : 2, own, across);
          for (std::int64_t column = 1; column < end; ++column) {
            correlate<block>(dy, x, column, lane, 0, 3, own, across);
          }
          if (t.width > 1) correlate<block>(dy, x, end, lane, 0, 2, own, across);
        }
        HWY_ALIGN float lanes[R::lanes];
        for (std::int64_t s = 0; s < 3; ++s) {
          for (const std::int64_t half : {0, 1}) {
            hn::Store(half == 0 ? own[s] : across[s], d, lanes);
            double* const sum = t.sums + (half * taps + r * 3 + s) * t.stride + lane;
            for (std::size_t i = 0; i < R::lanes; ++i) sum[i] += static_cast<double>(lanes[i]);
          }
        }
      }
    }
  }
}

void pairs_gradient_tile(const PairsGradTile& t) {
  t.block == 16 ? correlate_rows<16>(t) : correlate_rows<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "core/graph/opdef.h"

namespace ftrain::cpu {
namespace {

HWY_EXPORT(pairs_tile);
HWY_EXPORT(pairs_gradient_tile);

// conv2d: x, weight -> y. conv2d_input_grad: dy, weight -> dx. weight: [C, 2, 3, 3].
class ChannelPairs : public BoundKernel {
 public:
  ChannelPairs(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(pairs_tile, environment.isa)),
        tiles_(tiles_of(node.input(0))),
        height_(node.input(0).shape[2]),
        width_(node.input(0).shape[3]),
        gradient_(node.op->name == "conv2d_input_grad") {}

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(2 * taps * tiles_.channels()) * sizeof(float);
  }

  void launch() override {
    arrange_weights();
    const float* const weights = static_cast<const float*>(scratch_);
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t block = i % tiles_.blocks;
      PairsTile t;
      t.x = input(0) + i * tiles_.block_stride;
      t.y = output(0) + i * tiles_.block_stride;
      t.own = weights + block * 2 * taps * tiles_.block;
      t.across = t.own + taps * tiles_.block;
      t.height = height_;
      t.width = width_;
      t.block = tiles_.block;
      tile_(t);
    });
  }

 private:
  // [C, 2, taps] to [C / B][own, across][taps][B]. `across`, at input lane c, is the weight from c
  // to the other lane of its pair.
  void arrange_weights() {
    float* const to = static_cast<float*>(scratch_);
    const float* const weight = input(1);
    for (std::int64_t c = 0; c < tiles_.channels(); ++c) {
      const std::int64_t mine = c & 1, lane = c % tiles_.block;
      float* const own = to + c / tiles_.block * 2 * taps * tiles_.block + lane;
      float* const across = own + taps * tiles_.block;
      const float* const from_own = weight + (c * 2 + mine) * taps;
      const float* const from_across =
          gradient_ ? weight + (c * 2 + (1 - mine)) * taps : weight + ((c ^ 1) * 2 + mine) * taps;
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        const std::int64_t from = gradient_ ? taps - 1 - tap : tap;
        own[tap * tiles_.block] = from_own[from];
        across[tap * tiles_.block] = from_across[from];
      }
    }
  }

  void (*tile_)(const PairsTile&);
  Tiles tiles_;
  std::int64_t height_, width_;
  bool gradient_;
};

// dy, x -> the gradient of weight.
class ChannelPairsWeightGrad : public BoundKernel {
 public:
  ChannelPairsWeightGrad(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(pairs_gradient_tile, environment.isa)),
        tiles_(tiles_of(node.input(1))),
        sums_(tiles_, 1, 2 * taps),
        height_(node.input(1).shape[2]),
        width_(node.input(1).shape[3]) {}

  std::size_t scratch_bytes() const override { return sums_.scratch_bytes(); }

  void launch() override {
    double* const scratch = static_cast<double*>(scratch_);
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      PairsGradTile t;
      t.dy = input(0) + tiles_.offset(run, block);
      t.x = input(1) + tiles_.offset(run, block);
      t.sums = partial;
      t.stride = sums_.partial_stride();
      t.height = height_;
      t.width = width_;
      t.block = tiles_.block;
      tile_(t);
    });
    // A sum across, at input lane c, is of the weight of output c ^ 1.
    for (std::int64_t c = 0; c < tiles_.channels(); ++c) {
      float* const own = output(0) + (c * 2 + (c & 1)) * taps;
      float* const across = output(0) + ((c ^ 1) * 2 + (c & 1)) * taps;
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        own[tap] = static_cast<float>(scratch[tap * sums_.width() + c]);
        across[tap] = static_cast<float>(scratch[(taps + tap) * sums_.width() + c]);
      }
    }
  }

 private:
  void (*tile_)(const PairsGradTile&);
  Tiles tiles_;
  ChannelSums sums_;
  std::int64_t height_, width_;
};

// `weight` is an input of the first two ops and the output of the third.
std::string refuse_pairs(const Node& node, const TensorType& weight, const TensorType& x,
                         const TensorType& y) {
  const Attributes& a = node.attributes;
  if (x.dtype != DType::f32 || y.dtype != DType::f32) return "only f32";
  const std::int64_t channels = weight.shape[0];
  if (weight.shape != Shape{channels, 2, 3, 3} || x.shape[1] != channels || x.shape != y.shape ||
      a.integer("stride") != 1 || a.integer("padding") != 1) {
    return "only 3x3 with stride 1 and padding 1 in groups of 2 channels";
  }
  if (channel_block(x.layout) == 1 || x.layout != y.layout) return "only channel-blocked images";
  if (weight.layout != row_major) return "the weight must be row-major";
  return {};
}

std::string refuse_convolution(const Node& node, const KernelEnvironment&) {
  return refuse_pairs(node, node.input(1), node.input(0), node.outputs[0]);
}
std::string refuse_weight_grad(const Node& node, const KernelEnvironment&) {
  return refuse_pairs(node, node.outputs[0], node.input(1), node.input(0));
}

}  // namespace

void add_channel_pair_kernels(KernelList& list) {
  list.add({"conv2d", "pairs", 30, refuse_convolution, make_kernel<ChannelPairs>});
  list.add({"conv2d_input_grad", "pairs", 30, refuse_convolution, make_kernel<ChannelPairs>});
  list.add(
      {"conv2d_weight_grad", "pairs", 30, refuse_weight_grad, make_kernel<ChannelPairsWeightGrad>});
}

}  // namespace ftrain::cpu
#endif
