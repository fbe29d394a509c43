// Global average pooling of channel-blocked images, and its gradient.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/pool.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <std::size_t block, class T>
void average_rows(const T* x, std::int64_t rows, float* mean) {
  using R = Row<block>;
  const typename R::D d;
  double total[block] = {};
  for (std::int64_t first = 0; first < rows; first += R::float_rows) {
    const std::int64_t last = HWY_MIN(rows, first + R::float_rows);
    typename R::V sum[R::unroll][R::parts];
    clear<block>(sum);
    for (std::int64_t row = first; row < last; ++row) {
      for (std::size_t k = 0; k < R::parts; ++k) {
        sum[0][k] = hn::Add(
            sum[0][k], load_lanes(d, x + row * static_cast<std::int64_t>(block) + k * R::lanes));
      }
    }
    add_to_doubles<block>(sum, total);
  }
  for (std::size_t i = 0; i < block; ++i) {
    mean[i] = static_cast<float>(total[i] / static_cast<double>(rows));
  }
}

template <std::size_t block>
void spread_rows(const float* dy, std::int64_t rows, float* dx) {
  using R = Row<block>;
  const typename R::D d;
  const auto share = hn::Set(d, 1.0f / static_cast<float>(rows));
  typename R::V value[R::parts];
  load_row<block>(dy, value);
  for (std::size_t k = 0; k < R::parts; ++k) value[k] = hn::Mul(value[k], share);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t k = 0; k < R::parts; ++k) {
      hn::StoreU(value[k], d, dx + row * static_cast<std::int64_t>(block) + k * R::lanes);
    }
  }
}

void average_tile(const float* x, std::int64_t block, std::int64_t rows, float* mean) {
  block == 16 ? average_rows<16>(x, rows, mean) : average_rows<8>(x, rows, mean);
}
void average_bf16_tile(const BF16* x, std::int64_t block, std::int64_t rows, float* mean) {
  block == 16 ? average_rows<16>(x, rows, mean) : average_rows<8>(x, rows, mean);
}
void spread_tile(const float* dy, std::int64_t block, std::int64_t rows, float* dx) {
  block == 16 ? spread_rows<16>(dy, rows, dx) : spread_rows<8>(dy, rows, dx);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(average_tile);
HWY_EXPORT(average_bf16_tile);
HWY_EXPORT(spread_tile);

using TileFunction = void (*)(const float*, std::int64_t, std::int64_t, float*);

// Tile i of the blocked image belongs to the i-th block of the row-major [N, C].
class GlobalAveragePool : public BoundKernel {
 public:
  GlobalAveragePool(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(average_tile, environment.isa)),
        bf16_tile_(FTRAIN_SIMD(average_bf16_tile, environment.isa)),
        bf16_(node.input(0).dtype == DType::bf16),
        tiles_(tiles_of(node.input(0))) {}

  void launch() override {
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t from = i * tiles_.block_stride;
      float* const to = output(0) + i * tiles_.block;
      if (bf16_) {
        bf16_tile_(static_cast<const BF16*>(inputs_[0]) + from, tiles_.block, tiles_.rows, to);
      } else {
        tile_(input(0) + from, tiles_.block, tiles_.rows, to);
      }
    });
  }

 private:
  TileFunction tile_;
  void (*bf16_tile_)(const BF16*, std::int64_t, std::int64_t, float*);
  bool bf16_;
  Tiles tiles_;
};

class GlobalAveragePoolGrad : public BoundKernel {
 public:
  GlobalAveragePoolGrad(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(spread_tile, environment.isa)),
        tiles_(tiles_of(node.outputs[0])) {}

  void launch() override {
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      tile_(input(0) + i * tiles_.block, tiles_.block, tiles_.rows,
            output(0) + i * tiles_.block_stride);
    });
  }

 private:
  TileFunction tile_;
  Tiles tiles_;
};

std::string refuse_pool(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0}, {}, true);
}

std::string refuse_gradient(const Node& node, const KernelEnvironment&) {
  if (node.input(0).dtype != DType::f32) return "only f32";
  if (channel_block(node.outputs[0].layout) == 1) return "only channel-blocked images";
  if (node.input(0).layout != row_major) return "the gradient must be row-major";
  return {};
}

}  // namespace

void add_pool_kernels(KernelList& list) {
  list.add({"global_average_pool", "simd", 10, refuse_pool, make_kernel<GlobalAveragePool>});
  list.add({"global_average_pool_grad", "simd", 10, refuse_gradient,
            make_kernel<GlobalAveragePoolGrad>});
}

}  // namespace ftrain::cpu
#endif
