// Batch normalisation forward, alone and with the PReLU or the addition that follows.
//
// Passes over x once (and over `other`): y = (x - mean) a + beta with a = gamma / sqrt(var + eps).
#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/simd/norm_kernel.h"

namespace ftrain::cpu {
namespace {

std::int64_t groups_of(const TensorType& moments) {
  return moments.shape.rank() == 2 ? moments.shape[0] : 1;
}

// batch_norm and batch_norm_fixed (whose statistics are one group), alone and in chains.
// Inputs: x, mean, variance, gamma, beta, slope or other.
class BatchNorm : public NormKernel {
 public:
  BatchNorm(const Node& node, const KernelEnvironment& environment)
      : NormKernel(node.input(0), groups_of(node.input(1)), environment),
        tile_(norm_forward(environment.isa).normalize),
        eps_(node.attributes.number("eps")) {
    const NormChain chain = NormChain::of(node);
    if (chain.tail == NormChain::Tail::prelu) after_ = After::prelu;
    if (chain.tail == NormChain::Tail::add) after_ = After::add;
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(width()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    const std::int64_t channels = tiles_.channels();
    float* const factor = static_cast<float*>(scratch_);
    for (std::int64_t i = 0; i < width(); ++i) {
      factor[i] = static_cast<float>(norm_factor(input(3)[i % channels], input(2)[i], eps_));
    }
    const std::int64_t runs = tiles_.outer / groups_;
    const bool stream = streams();
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t run = i / tiles_.blocks, block = i % tiles_.blocks;
      const std::int64_t at = tiles_.offset(run, block), channel = block * tiles_.block;
      const std::int64_t grouped = run / runs * channels + channel;
      NormTile t;
      t.shape = shape_;
      t.x = read(0, at);
      t.y = written(0, at);
      t.mean = input(1) + grouped;
      t.factor = factor + grouped;
      t.beta = input(4) + channel;
      if (after_ == After::prelu) t.slope = input(5) + channel;
      if (after_ == After::add) t.other = read(5, at);
      t.after = after_;
      t.stream = stream;
      tile_(t);
    });
  }

 private:
  void (*tile_)(const NormTile&);
  double eps_;
  After after_ = After::nothing;
};

// dx = dy gamma / sqrt(variance + eps): a normalisation with mean 0 and beta 0.
class BatchNormFixedInputGrad : public NormKernel {
 public:
  BatchNormFixedInputGrad(const Node& node, const KernelEnvironment& environment)
      : NormKernel(node.input(0), 1, environment),
        tile_(norm_forward(environment.isa).normalize),
        eps_(node.attributes.number("eps")),
        zeros_(static_cast<std::size_t>(tiles_.block), 0.0f) {}

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(tiles_.channels()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    float* const factor = static_cast<float*>(scratch_);
    for (std::int64_t c = 0; c < tiles_.channels(); ++c) {
      factor[c] = static_cast<float>(norm_factor(input(2)[c], input(1)[c], eps_));
    }
    parallel_for(tiles_.count(), threads(), [&](std::int64_t i) {
      const std::int64_t block = i % tiles_.blocks;
      const std::int64_t at = tiles_.offset(i / tiles_.blocks, block);
      NormTile t;
      t.shape = shape_;
      t.x = read(0, at);
      t.y = written(0, at);
      t.mean = t.beta = zeros_.data();
      t.factor = factor + block * tiles_.block;
      tile_(t);
    });
  }

 private:
  void (*tile_)(const NormTile&);
  double eps_;
  std::vector<float> zeros_;
};

std::string refuse_alone(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0}, {0}, true);
}

// Chains whose statistics are given.
std::string refuse_chain(const Node& node, const KernelEnvironment& environment) {
  const NormChain chain = NormChain::of(node);
  if (chain.tail == NormChain::Tail::add) return refuse_tiles(node, {0, 5}, {0}, true);
  return refuse_alone(node, environment);
}

}  // namespace

ChainKernel chains_of_given_statistics() {
  return {refuse_chain, make_kernel<BatchNorm>};
}

void add_batch_norm_kernels(KernelList& list) {
  for (const char* op : {"batch_norm", "batch_norm_fixed"}) {
    list.add({op, "simd", 10, refuse_alone, make_kernel<BatchNorm>});
  }
  list.add({"batch_norm_fixed_input_grad", "simd", 10, refuse_alone,
            make_kernel<BatchNormFixedInputGrad>});
}

}  // namespace ftrain::cpu
