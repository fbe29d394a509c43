// PReLU and its gradient, where no batch norm precedes it to be fused with.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/prelu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/reduce.h"

#ifndef FTRAIN_SIMD_PRELU_TILE
#define FTRAIN_SIMD_PRELU_TILE
namespace ftrain::cpu {
struct PReluTile {
  const float *dy = nullptr, *x = nullptr, *slope = nullptr;  // dy: the gradient alone
  float* y = nullptr;                                         // y or dx
  double* slope_sum = nullptr;                                // [block], added to
  std::int64_t rows = 0, stride = 0, block = 0;
};
}  // namespace ftrain::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <std::size_t block>
void prelu_rows(const PReluTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  typename R::V slope[R::parts];
  load_row<block>(t.slope, slope);
  for (std::int64_t row = 0; row < t.rows; ++row) {
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t at = row * t.stride + static_cast<std::int64_t>(k * R::lanes);
      const auto x = hn::LoadU(d, t.x + at);
      hn::StoreU(hn::MulAdd(slope[k], hn::Min(x, zero), hn::Max(x, zero)), d, t.y + at);
    }
  }
}

template <std::size_t block>
void prelu_gradient_rows(const PReluTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  typename R::V slope[R::parts];
  load_row<block>(t.slope, slope);
  for (std::int64_t first = 0; first < t.rows; first += R::float_rows) {
    const std::int64_t rows = HWY_MIN(R::float_rows, t.rows - first);
    typename R::V sum[R::unroll][R::parts];
    clear<block>(sum);
    const auto take = [&](std::int64_t row, std::size_t u) HWY_ATTR {
      for (std::size_t k = 0; k < R::parts; ++k) {
        const std::int64_t at = (first + row) * t.stride + static_cast<std::int64_t>(k * R::lanes);
        const auto dy = hn::LoadU(d, t.dy + at), x = hn::LoadU(d, t.x + at);
        sum[u][k] = hn::MulAdd(dy, hn::Min(x, zero), sum[u][k]);
        hn::StoreU(hn::IfThenElse(hn::Gt(x, zero), dy, hn::Mul(dy, slope[k])), d, t.y + at);
      }
    };
    std::int64_t row = 0;
    for (; row + static_cast<std::int64_t>(R::unroll) <= rows; row += R::unroll) {
      for (std::size_t u = 0; u < R::unroll; ++u) take(row + static_cast<std::int64_t>(u), u);
    }
    for (; row < rows; ++row) take(row, 0);
    add_to_doubles<block>(sum, t.slope_sum);
  }
}

void prelu_tile(const PReluTile& t) {
  t.block == 16 ? prelu_rows<16>(t) : prelu_rows<8>(t);
}
void prelu_gradient_tile(const PReluTile& t) {
  t.block == 16 ? prelu_gradient_rows<16>(t) : prelu_gradient_rows<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(prelu_tile);
HWY_EXPORT(prelu_gradient_tile);

PReluTile tile_at(const Tiles& tiles, const float* x, const float* slope, float* y,
                  std::int64_t run, std::int64_t block) {
  const std::int64_t at = tiles.offset(run, block);
  PReluTile t;
  t.x = x + at;
  t.slope = slope + block * tiles.block;
  t.y = y + at;
  t.rows = tiles.rows;
  t.stride = tiles.stride;
  t.block = tiles.block;
  return t;
}

class PRelu : public BoundKernel {
 public:
  PRelu(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(prelu_tile, environment.isa)),
        tiles_(tiles_of(node.input(0))) {}

  int overwrites() const override { return 0; }

  void launch() override {
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      tile_(tile_at(tiles_, input(0), input(1), output(0), i / tiles_.blocks, i % tiles_.blocks));
    });
  }

 private:
  void (*tile_)(const PReluTile&);
  Tiles tiles_;
};

class PReluGrad : public BoundKernel {
 public:
  PReluGrad(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(prelu_gradient_tile, environment.isa)),
        tiles_(tiles_of(node.input(0))),
        sums_(tiles_, 1, 1) {}

  std::size_t scratch_bytes() const override { return sums_.scratch_bytes(); }
  int overwrites() const override { return 0; }

  void launch() override {
    double* const scratch = static_cast<double*>(scratch_);
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      PReluTile t = tile_at(tiles_, input(1), input(2), output(0), run, block);
      t.dy = input(0) + tiles_.offset(run, block);
      t.slope_sum = partial;
      tile_(t);
    });
    for (std::int64_t c = 0; c < tiles_.channels(); ++c) {
      output(1)[c] = static_cast<float>(scratch[c]);
    }
  }

 private:
  void (*tile_)(const PReluTile&);
  Tiles tiles_;
  ChannelSums sums_;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0});
}
std::string refuse_gradient(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1});
}

}  // namespace

void add_prelu_kernels(KernelList& list) {
  list.add({"prelu", "simd", 10, refuse, make_kernel<PRelu>});
  list.add({"prelu_grad", "simd", 10, refuse_gradient, make_kernel<PReluGrad>});
}

}  // namespace ftrain::cpu
#endif
