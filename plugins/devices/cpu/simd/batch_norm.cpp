// Batch normalisation forward, alone and with the PReLU or the addition that follows.
//
// Passes over x once (and over `other`): y = (x - mean) a + beta with a = gamma / sqrt(var + eps).
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/batch_norm.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/batch_norm.h"
#include "plugins/devices/cpu/simd/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <std::size_t block, After after, bool stream>
void normalize_rows(const NormTile& t) {
  const hn::CappedTag<float, block> d;
  constexpr std::size_t lanes = hn::MaxLanes(d), parts = block / lanes;
  using V = hn::Vec<decltype(d)>;
  V mean[parts], factor[parts], beta[parts], slope[parts];
  for (std::size_t k = 0; k < parts; ++k) {
    mean[k] = hn::LoadU(d, t.mean + k * lanes);
    factor[k] = hn::LoadU(d, t.factor + k * lanes);
    beta[k] = hn::LoadU(d, t.beta + k * lanes);
    slope[k] = after == After::prelu ? hn::LoadU(d, t.slope + k * lanes) : hn::Zero(d);
  }
  const V zero = hn::Zero(d);
  for (std::int64_t row = 0; row < t.rows; ++row) {
    for (std::size_t k = 0; k < parts; ++k) {
      const std::int64_t at = row * t.stride + static_cast<std::int64_t>(k * lanes);
      V y = hn::MulAdd(hn::Sub(hn::LoadU(d, t.x + at), mean[k]), factor[k], beta[k]);
      if constexpr (after == After::prelu) {
        y = hn::MulAdd(slope[k], hn::Min(y, zero), hn::Max(y, zero));
      }
      if constexpr (after == After::add) y = hn::Add(y, hn::LoadU(d, t.other + at));
      if constexpr (stream) {
        hn::Stream(y, d, t.y + at);
      } else {
        hn::StoreU(y, d, t.y + at);
      }
    }
  }
  if constexpr (stream) hwy::FlushStream();
}

template <std::size_t block, After after>
void normalize_block(const NormTile& t) {
  t.stream ? normalize_rows<block, after, true>(t) : normalize_rows<block, after, false>(t);
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
  t.block == 16 ? normalize_after<16>(t) : normalize_after<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "core/graph/opdef.h"

namespace ftrain::cpu {
namespace {

HWY_EXPORT(normalize_tile);

// batch_norm and batch_norm_fixed (whose statistics are one group) in all their forms.
// Inputs: x, mean, variance, gamma, beta, slope or other.
class BatchNorm : public BoundKernel {
 public:
  BatchNorm(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment), tile_(FTRAIN_SIMD(normalize_tile, environment.isa)) {
    groups_ = node.input(1).shape.rank() == 2 ? node.input(1).shape[0] : 1;
    tiles_ = tiles_of(node.input(0), groups_);
    eps_ = node.attributes.number("eps");
    bytes_ = node.outputs[0].bytes();
    if (node.op->name.ends_with("_prelu")) after_ = After::prelu;
    if (node.op->name.ends_with("_add")) after_ = After::add;
    images_ = node.input(0).shape.rank() == 4;
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(groups_ * tiles_.channels()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    const std::int64_t channels = tiles_.channels();
    float* const factor = static_cast<float*>(scratch_);
    for (std::int64_t i = 0; i < groups_ * channels; ++i) {
      factor[i] = static_cast<float>(input(3)[i % channels] / std::sqrt(input(2)[i] + eps_));
    }
    const std::int64_t runs = tiles_.outer / groups_;
    const bool stream = images_ && writes_around_caches(bytes_);
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t run = i / tiles_.blocks, block = i % tiles_.blocks;
      const std::int64_t at = tiles_.offset(run, block), channel = block * tiles_.block;
      const std::int64_t grouped = run / runs * channels + channel;
      NormTile t;
      t.x = input(0) + at;
      t.y = output(0) + at;
      t.mean = input(1) + grouped;
      t.factor = factor + grouped;
      t.beta = input(4) + channel;
      if (after_ == After::prelu) t.slope = input(5) + channel;
      if (after_ == After::add) t.other = input(5) + at;
      t.rows = tiles_.rows;
      t.stride = tiles_.stride;
      t.block = tiles_.block;
      t.after = after_;
      t.stream = stream;
      tile_(t);
    });
  }

 private:
  void (*tile_)(const NormTile&);
  Tiles tiles_;
  std::int64_t groups_ = 1;
  double eps_ = 0;
  std::size_t bytes_ = 0;
  After after_ = After::nothing;
  bool images_ = false;
};

// dx = dy gamma / sqrt(variance + eps): a normalisation with mean 0 and beta 0.
class BatchNormFixedInputGrad : public BoundKernel {
 public:
  BatchNormFixedInputGrad(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(normalize_tile, environment.isa)),
        tiles_(tiles_of(node.input(0))),
        eps_(node.attributes.number("eps")),
        zeros_(static_cast<std::size_t>(tiles_.block), 0.0f) {}

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(tiles_.channels()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    float* const factor = static_cast<float*>(scratch_);
    for (std::int64_t c = 0; c < tiles_.channels(); ++c) {
      factor[c] = static_cast<float>(input(2)[c] / std::sqrt(input(1)[c] + eps_));
    }
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t block = i % tiles_.blocks;
      const std::int64_t at = tiles_.offset(i / tiles_.blocks, block);
      NormTile t;
      t.x = input(0) + at;
      t.y = output(0) + at;
      t.mean = t.beta = zeros_.data();
      t.factor = factor + block * tiles_.block;
      t.rows = tiles_.rows;
      t.stride = tiles_.stride;
      t.block = tiles_.block;
      tile_(t);
    });
  }

 private:
  void (*tile_)(const NormTile&);
  Tiles tiles_;
  double eps_;
  std::vector<float> zeros_;
};

std::string refuse_alone(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0});
}
std::string refuse_with_other(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 5});
}

}  // namespace

void add_batch_norm_kernels(KernelList& list) {
  for (const char* op :
       {"batch_norm", "batch_norm_fixed", "batch_norm_prelu", "batch_norm_fixed_prelu"}) {
    list.add({op, "simd", 10, refuse_alone, make_kernel<BatchNorm>});
  }
  for (const char* op : {"batch_norm_add", "batch_norm_fixed_add"}) {
    list.add({op, "simd", 10, refuse_with_other, make_kernel<BatchNorm>});
  }
  list.add({"batch_norm_fixed_input_grad", "simd", 10, refuse_alone,
            make_kernel<BatchNormFixedInputGrad>});
}

}  // namespace ftrain::cpu
#endif
