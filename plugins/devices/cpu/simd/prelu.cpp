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
  const void *dy = nullptr, *x = nullptr;  // dy: the gradient alone
  const float* slope = nullptr;
  void* y = nullptr;            // y or dx
  double* slope_sum = nullptr;  // [block], added to
  std::int64_t rows = 0, stride = 0, block = 0;
  bool bf16 = false;
};
}  // namespace ftrain::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <std::size_t block, class T>
void prelu_rows(const PReluTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const T* const from = static_cast<const T*>(t.x);
  T* const y = static_cast<T*>(t.y);
  const auto zero = hn::Zero(d);
  typename R::V slope[R::parts];
  load_row<block>(t.slope, slope);
  for (std::int64_t row = 0; row < t.rows; ++row) {
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t at = row * t.stride + static_cast<std::int64_t>(k * R::lanes);
      const auto x = load_lanes(d, from + at);
      store_lanes(hn::MulAdd(slope[k], hn::Min(x, zero), hn::Max(x, zero)), d, y + at);
    }
  }
}

template <std::size_t block, class T>
void prelu_gradient_rows(const PReluTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const T *const from = static_cast<const T*>(t.x), *const gradient = static_cast<const T*>(t.dy);
  T* const dx = static_cast<T*>(t.y);
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
        const auto dy = load_lanes(d, gradient + at), x = load_lanes(d, from + at);
        sum[u][k] = hn::MulAdd(dy, hn::Min(x, zero), sum[u][k]);
        store_lanes(hn::IfThenElse(hn::Gt(x, zero), dy, hn::Mul(dy, slope[k])), d, dx + at);
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

template <class T>
void prelu_type(const PReluTile& t) {
  t.block == 16 ? prelu_rows<16, T>(t) : prelu_rows<8, T>(t);
}
template <class T>
void prelu_gradient_type(const PReluTile& t) {
  t.block == 16 ? prelu_gradient_rows<16, T>(t) : prelu_gradient_rows<8, T>(t);
}

void prelu_tile(const PReluTile& t) {
  t.bf16 ? prelu_type<BF16>(t) : prelu_type<float>(t);
}
void prelu_gradient_tile(const PReluTile& t) {
  t.bf16 ? prelu_gradient_type<BF16>(t) : prelu_gradient_type<float>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(prelu_tile);
HWY_EXPORT(prelu_gradient_tile);

class PReluKernel : public BoundKernel {
 public:
  PReluKernel(const TensorType& x, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tiles_(tiles_of(x)),
        element_(static_cast<std::int64_t>(size_of(x.dtype))) {}

  int overwrites() const override { return 0; }

 protected:
  // A tile of x, with the slopes that are input `slope`.
  PReluTile tile_at(std::size_t x, std::size_t slope, std::int64_t run, std::int64_t block) const {
    PReluTile t;
    t.x = at(inputs_[x], run, block);
    t.slope = input(slope) + block * tiles_.block;
    t.y = at(outputs_[0], run, block);
    t.rows = tiles_.rows;
    t.stride = tiles_.stride;
    t.block = tiles_.block;
    t.bf16 = element_ == sizeof(BF16);
    return t;
  }
  void* at(void* tensor, std::int64_t run, std::int64_t block) const {
    return static_cast<char*>(tensor) + tiles_.offset(run, block) * element_;
  }

  Tiles tiles_;

 private:
  std::int64_t element_;
};

class PRelu : public PReluKernel {
 public:
  PRelu(const Node& node, const KernelEnvironment& environment)
      : PReluKernel(node.input(0), environment), tile_(FTRAIN_SIMD(prelu_tile, environment.isa)) {}

  void launch() override {
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      tile_(tile_at(0, 1, i / tiles_.blocks, i % tiles_.blocks));
    });
  }

 private:
  void (*tile_)(const PReluTile&);
};

class PReluGrad : public PReluKernel {
 public:
  PReluGrad(const Node& node, const KernelEnvironment& environment)
      : PReluKernel(node.input(0), environment),
        tile_(FTRAIN_SIMD(prelu_gradient_tile, environment.isa)),
        sums_(tiles_, 1, 1) {}

  std::size_t scratch_bytes() const override { return sums_.scratch_bytes(); }

  void launch() override {
    double* const scratch = static_cast<double*>(scratch_);
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      PReluTile t = tile_at(1, 2, run, block);
      t.dy = at(inputs_[0], run, block);
      t.slope_sum = partial;
      tile_(t);
    });
    for (std::int64_t c = 0; c < tiles_.channels(); ++c) {
      output(1)[c] = static_cast<float>(scratch[c]);
    }
  }

 private:
  void (*tile_)(const PReluTile&);
  ChannelSums sums_;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0}, {0}, true);
}
std::string refuse_gradient(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1}, {0}, true);
}

}  // namespace

void add_prelu_kernels(KernelList& list) {
  list.add({"prelu", "simd", 10, refuse, make_kernel<PRelu>});
  list.add({"prelu_grad", "simd", 10, refuse_gradient, make_kernel<PReluGrad>});
}

}  // namespace ftrain::cpu
#endif
