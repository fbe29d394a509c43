// A batch norm's sums and gradient in one kernel: with the PReLU behind it, with an addition, after
// a sum of two gradients, and after the gradient through the norm that follows.
//
// Bytes over memory where a slab fits the caches: reads each operand, writes each result, once.
#include <algorithm>

#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/simd/norm_kernel.h"
#include "plugins/devices/cpu/simd/slabs.h"

namespace ftrain::cpu {
namespace {

// Where a norm's tensors are among the node's: x is input `x`, then mean, variance, gamma, and with
// a PReLU beta, slope. Its gradients are outputs `dx`, dgamma, dbeta (, dslope); its sums of a slab
// start with number `sum`.
struct Place {
  std::size_t x = 0, dx = 0;
  std::int64_t sum = 0;
  double eps = 0;
  bool prelu = false;
  float* coefficients = nullptr;  // [3, groups, C]: factor, along, offset
};

// Inputs: dy, x, mean, variance, gamma (, beta, slope) (, other)
//   of a sum: a, b, x, ...
//   of a pair: dz, x, mean, variance, gamma, other, then those of the inner norm from x on.
class WholeNormGrad : public NormKernel {
 public:
  WholeNormGrad(const Node& node, const KernelEnvironment& environment)
      : WholeNormGrad(node, environment, NormChainGrad::of(node)) {}

  std::size_t scratch_bytes() const override {
    return slabs_.scratch_bytes() +
           static_cast<std::size_t>(width()) * (sizeof(double) + 6 * sizeof(float));
  }
  int overwrites() const override { return 0; }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    NormKernel::bind(inputs, outputs, scratch);
    slopes_ = static_cast<double*>(scratch) + slabs_.scratch_bytes() / sizeof(double);
    outer_.coefficients = reinterpret_cast<float*>(slopes_ + width());
    last_.coefficients = outer_.coefficients + 3 * width();
  }

  void launch() override {
    set_factors(last_);
    const bool stream = streams(last_.dx);
    slabs_.for_each(static_cast<double*>(scratch_), threads(), [&](const Slabs::Slab& slab) {
      if (pair_) {
        sum(slab, outer_);
        add_and_sum(slab, Direction::fro,
                    [&](NormGradTile& t, const Block& block, std::int64_t at) {
                      set_gradient(t, outer_, block, at);
                      t.other = read(5, at);
                    });
      } else if (sum_) {
        add_and_sum(slab, Direction::to,
                    [&](NormGradTile& t, const Block&, std::int64_t at) { t.other = read(1, at); });
      } else {
        sum(slab, last_);
      }
      if (pair_ || sum_) settle(slab, last_);
      slab.pass(pair_ ? Direction::to : Direction::fro, [&](const Block& block, std::int64_t at) {
        NormGradTile t;
        t.shape = shape_;
        set_gradient(t, last_, block, at);
        t.dy = pair_ || sum_ ? written(0, at) : read(0, at);
        t.dx = written(last_.dx, at);
        if (last_.prelu) t.after = After::prelu;
        if (add_) {
          t.after = After::add;
          t.other = read(5, at);
        }
        t.stream = stream;
        tiles_of_.gradient(t);
      });
    });
    if (last_.prelu) sum_slopes();
  }

 private:
  using Block = Slabs::Block;

  WholeNormGrad(const Node& node, const KernelEnvironment& environment, const NormChainGrad& chain)
      : NormKernel(node.input(chain.before == NormChainGrad::Before::sum ? 2 : 1),
                   node.input(chain.before == NormChainGrad::Before::sum ? 3 : 2).shape[0],
                   environment),
        tiles_of_(norm_backward(environment.isa)),
        pair_(chain.before == NormChainGrad::Before::norm),
        sum_(chain.before == NormChainGrad::Before::sum),
        add_(chain.add),
        slabs_(tiles_, groups_, pair_ ? 5 : 3,
               pair_          ? 5
               : sum_ || add_ ? 3
                              : 2,
               static_cast<std::int64_t>(size_of(node.input(0).dtype)), environment.threads) {
    const double eps = node.attributes.number("eps");
    const bool prelu = chain.prelu;
    outer_ = {.x = 1, .dx = 0, .sum = 0, .eps = eps, .prelu = false, .coefficients = nullptr};
    if (pair_) {
      last_ = {.x = 6,
               .dx = 3,
               .sum = 2,
               .eps = node.attributes.number("inner_eps"),
               .prelu = prelu,
               .coefficients = nullptr};
    } else if (sum_) {
      last_ = {.x = 2, .dx = 1, .sum = 0, .eps = eps, .prelu = prelu, .coefficients = nullptr};
    } else {
      last_ = {.x = 1, .dx = 0, .sum = 0, .eps = eps, .prelu = prelu, .coefficients = nullptr};
    }
  }

  static std::int64_t sums(const Place& norm) { return norm.prelu ? 3 : 2; }

  // What z takes, which the sums go through where there is a PReLU.
  void set_factors(const Place& norm) const {
    if (!norm.prelu) return;
    for (std::int64_t i = 0; i < width(); ++i) {
      norm.coefficients[i] = static_cast<float>(
          norm_factor(input(norm.x + 3)[i % tiles_.channels()], input(norm.x + 2)[i], norm.eps));
    }
  }

  NormSumsTile sums_tile(const Place& norm, const Block& block, const void* dy, std::int64_t at,
                         double* sums) const {
    NormSumsTile t;
    t.shape = shape_;
    t.dy = dy;
    t.x = read(norm.x, at);
    t.mean = input(norm.x + 1) + block.grouped;
    t.sum = sums;
    t.product = sums + tiles_.block;
    t.prelu = norm.prelu;
    if (norm.prelu) {
      t.factor = norm.coefficients + block.grouped;
      t.beta = input(norm.x + 4) + block.channel;
      t.slope = input(norm.x + 5) + block.channel;
      t.slope_sum = sums + 2 * tiles_.block;
    }
    return t;
  }

  void sum(const Slabs::Slab& slab, const Place& norm) const {
    slab.sum(Direction::to, norm.sum, sums(norm),
             [&](const Block& block, std::int64_t at, double* sums) {
               tiles_of_.sums(sums_tile(norm, block, read(0, at), at, sums));
             });
    settle(slab, norm);
  }

  // Writes output 0 and takes the last norm's sums of it. set(tile, block, offset) says what it is.
  template <class Set>
  void add_and_sum(const Slabs::Slab& slab, Direction direction, const Set& set) const {
    slab.sum(direction, last_.sum, sums(last_),
             [&](const Block& block, std::int64_t at, double* sums) {
               GradAndSumsTile t;
               t.through_norm = pair_;
               t.grad.shape = shape_;
               t.grad.dy = read(0, at);
               t.grad.dx = written(0, at);
               set(t.grad, block, at);
               t.sums = sums_tile(last_, block, nullptr, at, sums);
               tiles_of_.gradient_and_sums(t);
             });
  }

  void set_gradient(NormGradTile& t, const Place& norm, const Block& block, std::int64_t at) const {
    t.x = read(norm.x, at);
    t.mean = input(norm.x + 1) + block.grouped;
    t.factor = norm.coefficients + block.grouped;
    t.along = t.factor + width();
    t.offset = t.along + width();
    if (norm.prelu) {
      t.beta = input(norm.x + 4) + block.channel;
      t.slope = input(norm.x + 5) + block.channel;
    }
  }

  // From the norm's sums: what its gradient takes, and dgamma and dbeta.
  void settle(const Slabs::Slab& slab, const Place& norm) const {
    slab.settle([&](const Block& block) {
      double sum[16], product[16];
      slab.total(block, norm.sum, sum);
      slab.total(block, norm.sum + 1, product);
      const double inverse_count = 1.0 / static_cast<double>(samples());
      float* const factor = norm.coefficients + block.grouped;
      for (std::int64_t i = 0; i < tiles_.block; ++i) {
        const std::int64_t at = block.grouped + i;
        const double inverse = 1 / std::sqrt(input(norm.x + 2)[at] + norm.eps);
        const double a = input(norm.x + 3)[block.channel + i] * inverse;
        const float dgamma = static_cast<float>(product[i] * inverse);
        const float dbeta = static_cast<float>(sum[i]);
        factor[i] = static_cast<float>(a);
        factor[width() + i] = static_cast<float>(a * inverse * dgamma * inverse_count);
        factor[2 * width() + i] = static_cast<float>(a * dbeta * inverse_count);
        output(norm.dx + 1)[at] = dgamma;
        output(norm.dx + 2)[at] = dbeta;
      }
      if (norm.prelu) slab.total(block, norm.sum + 2, slopes_ + block.grouped);
    });
  }

  void sum_slopes() const {
    const std::int64_t channels = tiles_.channels();
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (std::int64_t g = 0; g < groups_; ++g) sum += slopes_[g * channels + c];
      output(last_.dx + 3)[c] = static_cast<float>(sum);
    }
  }

  NormBackward tiles_of_;
  bool pair_, sum_, add_;
  Slabs slabs_;
  Place outer_, last_;
  double* slopes_ = nullptr;  // [groups, C]
};

std::string refuse_whole(const Node& node, const KernelEnvironment&) {
  const NormChainGrad chain = NormChainGrad::of(node);
  if (chain.add && (chain.prelu || chain.before != NormChainGrad::Before::nothing)) {
    return "adds to the gradient of a norm alone";
  }
  switch (chain.before) {
    case NormChainGrad::Before::sum:
      return refuse_tiles(node, {0, 1, 2}, {0, 1}, true);
    case NormChainGrad::Before::norm:
      return refuse_tiles(node, {0, 1, 5, 6}, {0, 3}, true);
    case NormChainGrad::Before::nothing:
      break;
  }
  return chain.add ? refuse_tiles(node, {0, 1, 5}, {0}, true)
                   : refuse_tiles(node, {0, 1}, {0}, true);
}

}  // namespace

ChainKernel gradients_with_their_sums() {
  return {refuse_whole, make_kernel<WholeNormGrad>};
}

}  // namespace ftrain::cpu
