// Batch normalisation backward: the sums over a group, and the gradient of x; both with or without
// the PReLU that follows the norm, whose input z is computed again from x.
//
// Bytes over memory: sums read dy and x; the gradient reads them again and writes dx.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/batch_norm_gradient.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/batch_norm.h"
#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/reduce.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <std::size_t block, bool prelu>
void sum_rows(const NormSumsTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  typename R::V mean[R::parts], factor[R::parts], beta[R::parts], slope[R::parts];
  load_row<block>(t.mean, mean);
  if constexpr (prelu) {
    load_row<block>(t.factor, factor);
    load_row<block>(t.beta, beta);
    load_row<block>(t.slope, slope);
  }
  for (std::int64_t first = 0; first < t.rows; first += R::float_rows) {
    const std::int64_t rows = HWY_MIN(R::float_rows, t.rows - first);
    const float* const dy = t.dy + first * t.stride;
    const float* const x = t.x + first * t.stride;
    typename R::V sum[R::unroll][R::parts], product[R::unroll][R::parts],
        slopes[R::unroll][R::parts];
    clear<block>(sum);
    clear<block>(product);
    clear<block>(slopes);
    const auto take = [&](std::int64_t row, std::size_t u) HWY_ATTR {
      for (std::size_t k = 0; k < R::parts; ++k) {
        const std::int64_t at = row * t.stride + static_cast<std::int64_t>(k * R::lanes);
        auto dz = hn::LoadU(d, dy + at);
        const auto centred = hn::Sub(hn::LoadU(d, x + at), mean[k]);
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
      for (std::size_t u = 0; u < R::unroll; ++u) take(row + static_cast<std::int64_t>(u), u);
    }
    for (; row < rows; ++row) take(row, 0);
    add_to_doubles<block>(sum, t.sum);
    add_to_doubles<block>(product, t.product);
    if constexpr (prelu) add_to_doubles<block>(slopes, t.slope_sum);
  }
}

template <std::size_t block>
void sum_block(const NormSumsTile& t) {
  t.prelu ? sum_rows<block, true>(t) : sum_rows<block, false>(t);
}

void norm_sums_tile(const NormSumsTile& t) {
  t.block == 16 ? sum_block<16>(t) : sum_block<8>(t);
}

template <std::size_t block, After after, bool stream>
void gradient_rows(const NormGradTile& t) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  typename R::V mean[R::parts], factor[R::parts], along[R::parts], offset[R::parts];
  typename R::V beta[R::parts], slope[R::parts];
  load_row<block>(t.mean, mean);
  load_row<block>(t.factor, factor);
  load_row<block>(t.along, along);
  load_row<block>(t.offset, offset);
  if constexpr (after == After::prelu) {
    load_row<block>(t.beta, beta);
    load_row<block>(t.slope, slope);
  }
  for (std::int64_t row = 0; row < t.rows; ++row) {
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t at = row * t.stride + static_cast<std::int64_t>(k * R::lanes);
      auto dz = hn::LoadU(d, t.dy + at);
      const auto centred = hn::Sub(hn::LoadU(d, t.x + at), mean[k]);
      if constexpr (after == After::prelu) {
        const auto z = hn::MulAdd(centred, factor[k], beta[k]);
        dz = hn::IfThenElse(hn::Gt(z, zero), dz, hn::Mul(dz, slope[k]));
      }
      auto dx = hn::MulSub(dz, factor[k], offset[k]);
      dx = hn::NegMulAdd(centred, along[k], dx);
      if constexpr (after == After::add) dx = hn::Add(dx, hn::LoadU(d, t.other + at));
      if constexpr (stream) {
        hn::Stream(dx, d, t.dx + at);
      } else {
        hn::StoreU(dx, d, t.dx + at);
      }
    }
  }
  if constexpr (stream) hwy::FlushStream();
}

template <std::size_t block, After after>
void gradient_block(const NormGradTile& t) {
  t.stream ? gradient_rows<block, after, true>(t) : gradient_rows<block, after, false>(t);
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
  t.block == 16 ? gradient_after<16>(t) : gradient_after<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "core/graph/opdef.h"

namespace ftrain::cpu {
namespace {

HWY_EXPORT(norm_sums_tile);
HWY_EXPORT(norm_gradient_tile);

// batch_norm_sums: dy, x, mean, variance -> dgamma, dbeta.
// batch_norm_prelu_sums: dy, x, mean, variance, gamma, beta, slope -> dgamma, dbeta, dslope.
class BatchNormSums : public BoundKernel {
 public:
  BatchNormSums(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(norm_sums_tile, environment.isa)),
        prelu_(node.inputs.size() == 7),
        groups_(node.input(2).shape[0]),
        tiles_(tiles_of(node.input(1), groups_)),
        sums_(tiles_, groups_, prelu_ ? 3 : 2),
        eps_(node.attributes.number("eps")) {}

  std::size_t scratch_bytes() const override {
    return sums_.scratch_bytes() + static_cast<std::size_t>(sums_.width()) * sizeof(float);
  }

  void launch() override {
    const std::int64_t channels = tiles_.channels(), width = sums_.width();
    double* const scratch = static_cast<double*>(scratch_);
    float* const factor =
        reinterpret_cast<float*>(scratch + sums_.scratch_bytes() / sizeof(double));
    if (prelu_) {
      for (std::int64_t i = 0; i < width; ++i) {
        factor[i] = static_cast<float>(input(4)[i % channels] / std::sqrt(input(3)[i] + eps_));
      }
    }
    const std::int64_t runs = tiles_.outer / groups_;
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      const std::int64_t at = tiles_.offset(run, block), channel = block * tiles_.block;
      const std::int64_t grouped = run / runs * channels + channel;
      NormSumsTile t;
      t.dy = input(0) + at;
      t.x = input(1) + at;
      t.mean = input(2) + grouped;
      t.sum = partial;
      t.product = partial + width;
      if (prelu_) {
        t.factor = factor + grouped;
        t.beta = input(5) + channel;
        t.slope = input(6) + channel;
        t.slope_sum = partial + 2 * width;
      }
      t.rows = tiles_.rows;
      t.stride = tiles_.stride;
      t.block = tiles_.block;
      t.prelu = prelu_;
      tile_(t);
    });
    for (std::int64_t i = 0; i < width; ++i) {
      output(0)[i] = static_cast<float>(scratch[width + i] / std::sqrt(input(3)[i] + eps_));
      output(1)[i] = static_cast<float>(scratch[i]);
    }
    if (!prelu_) return;
    for (std::int64_t c = 0; c < channels; ++c) {
      double slope = 0;
      for (std::int64_t g = 0; g < groups_; ++g) slope += scratch[2 * width + g * channels + c];
      output(2)[c] = static_cast<float>(slope);
    }
  }

 private:
  void (*tile_)(const NormSumsTile&);
  bool prelu_;
  std::int64_t groups_;
  Tiles tiles_;
  ChannelSums sums_;
  double eps_;
};

// Inputs: dy, x, mean, variance, gamma, then
//   batch_norm_input_grad: dgamma, dbeta; batch_norm_input_grad_add: dgamma, dbeta, other;
//   batch_norm_prelu_input_grad: beta, slope, dgamma, dbeta.
class BatchNormInputGrad : public BoundKernel {
 public:
  BatchNormInputGrad(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(norm_gradient_tile, environment.isa)),
        groups_(node.input(2).shape[0]),
        tiles_(tiles_of(node.input(1), groups_)),
        eps_(node.attributes.number("eps")),
        bytes_(node.outputs[0].bytes()),
        images_(node.input(1).shape.rank() == 4) {
    if (node.op->name == "batch_norm_prelu_input_grad") after_ = After::prelu;
    if (node.op->name == "batch_norm_input_grad_add") after_ = After::add;
    const std::int64_t samples = node.input(1).shape.elements() / (groups_ * tiles_.channels());
    inverse_count_ = 1.0 / static_cast<double>(samples * node.attributes.integer("ranks"));
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(3 * groups_ * tiles_.channels()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    const std::int64_t channels = tiles_.channels(), width = groups_ * channels;
    float* const factor = static_cast<float*>(scratch_);
    float* const along = factor + width;
    float* const offset = along + width;
    const std::size_t sums = after_ == After::prelu ? 7 : 5;
    for (std::int64_t i = 0; i < width; ++i) {
      const double inverse = 1 / std::sqrt(input(3)[i] + eps_);
      const double a = input(4)[i % channels] * inverse;
      factor[i] = static_cast<float>(a);
      along[i] = static_cast<float>(a * inverse * input(sums)[i] * inverse_count_);
      offset[i] = static_cast<float>(a * input(sums + 1)[i] * inverse_count_);
    }
    const std::int64_t runs = tiles_.outer / groups_;
    const bool stream = images_ && writes_around_caches(bytes_);
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t run = i / tiles_.blocks, block = i % tiles_.blocks;
      const std::int64_t at = tiles_.offset(run, block), channel = block * tiles_.block;
      const std::int64_t grouped = run / runs * channels + channel;
      NormGradTile t;
      t.dy = input(0) + at;
      t.x = input(1) + at;
      t.dx = output(0) + at;
      t.mean = input(2) + grouped;
      t.factor = factor + grouped;
      t.along = along + grouped;
      t.offset = offset + grouped;
      if (after_ == After::prelu) {
        t.beta = input(5) + channel;
        t.slope = input(6) + channel;
      }
      if (after_ == After::add) t.other = input(7) + at;
      t.rows = tiles_.rows;
      t.stride = tiles_.stride;
      t.block = tiles_.block;
      t.after = after_;
      t.stream = stream;
      tile_(t);
    });
  }

 private:
  void (*tile_)(const NormGradTile&);
  std::int64_t groups_;
  Tiles tiles_;
  double eps_;
  std::size_t bytes_;
  bool images_;
  After after_ = After::nothing;
  double inverse_count_ = 0;
};

std::string refuse_sums(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1}, {});
}
std::string refuse_gradient(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1});
}
std::string refuse_with_other(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1, 7});
}

}  // namespace

void add_batch_norm_gradient_kernels(KernelList& list) {
  list.add({"batch_norm_sums", "simd", 10, refuse_sums, make_kernel<BatchNormSums>});
  list.add({"batch_norm_prelu_sums", "simd", 10, refuse_sums, make_kernel<BatchNormSums>});
  list.add({"batch_norm_input_grad", "simd", 10, refuse_gradient, make_kernel<BatchNormInputGrad>});
  list.add({"batch_norm_prelu_input_grad", "simd", 10, refuse_gradient,
            make_kernel<BatchNormInputGrad>});
  list.add({"batch_norm_input_grad_add", "simd", 10, refuse_with_other,
            make_kernel<BatchNormInputGrad>});
}

}  // namespace ftrain::cpu
#endif
