// Batch normalisation backward: the sums over a group, and the gradient of x; both with or without
// the PReLU that follows the norm, whose input z is computed again from x.
//
// Bytes over memory: sums read dy and x; the gradient reads them again and writes dx.
#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/simd/norm_kernel.h"
#include "plugins/devices/cpu/simd/reduce.h"

namespace ftrain::cpu {
namespace {

// batch_norm_sums: dy, x, mean, variance -> dgamma, dbeta.
// the chain `prelu sums`: dy, x, mean, variance, gamma, beta, slope -> dgamma, dbeta, dslope.
class BatchNormSums : public NormKernel {
 public:
  BatchNormSums(const Node& node, const KernelEnvironment& environment)
      : NormKernel(node.input(1), node.input(2).shape[0], environment),
        tile_(norm_backward(environment.isa).sums),
        prelu_(node.inputs.size() == 7),
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
        factor[i] = static_cast<float>(norm_factor(input(4)[i % channels], input(3)[i], eps_));
      }
    }
    const std::int64_t runs = tiles_.outer / groups_;
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      const std::int64_t at = tiles_.offset(run, block), channel = block * tiles_.block;
      const std::int64_t grouped = run / runs * channels + channel;
      NormSumsTile t;
      t.shape = shape_;
      t.dy = read(0, at);
      t.x = read(1, at);
      t.mean = input(2) + grouped;
      t.sum = partial;
      t.product = partial + width;
      if (prelu_) {
        t.factor = factor + grouped;
        t.beta = input(5) + channel;
        t.slope = input(6) + channel;
        t.slope_sum = partial + 2 * width;
      }
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
  ChannelSums sums_;
  double eps_;
};

// Inputs: dy, x, mean, variance, gamma, then
//   batch_norm_input_grad: dgamma, dbeta; the chain `input add`: dgamma, dbeta, other;
//   the chain `prelu input`: beta, slope, dgamma, dbeta.
class BatchNormInputGrad : public NormKernel {
 public:
  BatchNormInputGrad(const Node& node, const KernelEnvironment& environment)
      : NormKernel(node.input(1), node.input(2).shape[0], environment),
        tile_(norm_backward(environment.isa).gradient),
        eps_(node.attributes.number("eps")) {
    if (node.op == &ops::def::norm_chain_grad) {
      const NormChainGrad chain = NormChainGrad::of(node);
      if (chain.prelu) after_ = After::prelu;
      if (chain.add) after_ = After::add;
    }
    inverse_count_ = 1.0 / static_cast<double>(samples() * node.attributes.integer("ranks"));
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(3 * width()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    const std::int64_t channels = tiles_.channels(), width = this->width();
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
    const bool stream = streams();
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t run = i / tiles_.blocks, block = i % tiles_.blocks;
      const std::int64_t at = tiles_.offset(run, block), channel = block * tiles_.block;
      const std::int64_t grouped = run / runs * channels + channel;
      NormGradTile t;
      t.shape = shape_;
      t.dy = read(0, at);
      t.x = read(1, at);
      t.dx = written(0, at);
      t.mean = input(2) + grouped;
      t.factor = factor + grouped;
      t.along = along + grouped;
      t.offset = offset + grouped;
      if (after_ == After::prelu) {
        t.beta = input(5) + channel;
        t.slope = input(6) + channel;
      }
      if (after_ == After::add) t.other = read(7, at);
      t.after = after_;
      t.stream = stream;
      tile_(t);
    });
  }

 private:
  void (*tile_)(const NormGradTile&);
  double eps_;
  After after_ = After::nothing;
  double inverse_count_ = 0;
};

std::string refuse_sums(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1}, {}, true);
}
std::string refuse_gradient(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0, 1}, {0}, true);
}

// Chains that make the sums, and those that take them.
std::string refuse_sums_of_chain(const Node& node, const KernelEnvironment& environment) {
  if (NormChainGrad::of(node) != chains::prelu_sums) return "has the sums alone only with a PReLU";
  return refuse_sums(node, environment);
}
std::string refuse_gradient_of_chain(const Node& node, const KernelEnvironment& environment) {
  const NormChainGrad chain = NormChainGrad::of(node);
  if (chain == chains::input_add) return refuse_tiles(node, {0, 1, 7}, {0}, true);
  if (chain != chains::prelu_input)
    return "has the gradient alone only with a PReLU or an addition";
  return refuse_gradient(node, environment);
}

}  // namespace

ChainKernel gradients_of_sums_alone() {
  return {refuse_sums_of_chain, make_kernel<BatchNormSums>};
}
ChainKernel gradients_of_given_sums() {
  return {refuse_gradient_of_chain, make_kernel<BatchNormInputGrad>};
}

void add_batch_norm_gradient_kernels(KernelList& list) {
  list.add({"batch_norm_sums", "simd", 10, refuse_sums, make_kernel<BatchNormSums>});
  list.add({"batch_norm_input_grad", "simd", 10, refuse_gradient, make_kernel<BatchNormInputGrad>});
}

}  // namespace ftrain::cpu
