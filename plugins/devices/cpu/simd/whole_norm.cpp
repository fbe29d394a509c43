// Batch moments and norm in one kernel, with the PReLU or the addition that follows, and with the
// norm of the result.
//
// Bytes over memory where a slab fits the caches: reads x (and other), writes y (and z).
#include <algorithm>

#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/simd/norm_kernel.h"
#include "plugins/devices/cpu/simd/slabs.h"

namespace ftrain::cpu {
namespace {

// Inputs: x, gamma, beta, slope or other, then for a pair gamma and beta of the second norm.
// Outputs: y, mean, variance, then for a pair z and its mean and variance.
class WholeNorm : public NormKernel {
 public:
  WholeNorm(const Node& node, const KernelEnvironment& environment)
      : NormKernel(node.input(0), node.attributes.integer("groups"), environment),
        tiles_of_(norm_forward(environment.isa)),
        pair_(node.outputs.size() == 6),
        eps_(node.attributes.number("eps")),
        second_eps_(pair_ ? node.attributes.number("second_eps") : 0),
        slabs_(tiles_, groups_, pair_ ? 4 : 2, pair_ ? 3 : 2,
               static_cast<std::int64_t>(size_of(node.input(0).dtype)), environment.threads) {
    const NormChain chain = NormChain::of(node);
    if (chain.tail == NormChain::Tail::prelu) after_ = After::prelu;
    if (chain.tail == NormChain::Tail::add) after_ = After::add;
  }

  std::size_t scratch_bytes() const override {
    return slabs_.scratch_bytes() + static_cast<std::size_t>(2 * width()) * sizeof(float);
  }
  int overwrites() const override { return 0; }

  void launch() override {
    const bool stream = streams(pair_ ? 3 : 0);
    double* const scratch = static_cast<double*>(scratch_);
    float* const factor =
        reinterpret_cast<float*>(scratch + slabs_.scratch_bytes() / sizeof(double));
    float* const second_factor = factor + width();
    slabs_.for_each(scratch, threads(), [&](const Slabs::Slab& slab) {
      slab.sum(Direction::to, 0, 2, [&](const Block&, std::int64_t at, double* sums) {
        MomentsTile t;
        t.shape = shape_;
        t.x = read(0, at);
        t.sum = sums;
        t.square = sums + tiles_.block;
        tiles_of_.moments(t);
      });
      slab.settle([&](const Block& block) { moments(slab, block, 0, 1, eps_, 1, factor); });
      if (!pair_) {
        slab.pass(Direction::fro, [&](const Block& block, std::int64_t at) {
          NormTile t = normal(block, factor, at);
          t.stream = stream;
          tiles_of_.normalize(t);
        });
        return;
      }
      slab.sum(Direction::fro, 2, 2, [&](const Block& block, std::int64_t at, double* sums) {
        NormTile t = normal(block, factor, at);
        t.sum = sums;
        t.square = sums + tiles_.block;
        tiles_of_.normalize_and_sum(t);
      });
      slab.settle(
          [&](const Block& block) { moments(slab, block, 2, 4, second_eps_, 4, second_factor); });
      slab.pass(Direction::to, [&](const Block& block, std::int64_t at) {
        NormTile t;
        t.shape = shape_;
        t.x = written(0, at);
        t.y = written(3, at);
        t.mean = output(4) + block.grouped;
        t.factor = second_factor + block.grouped;
        t.beta = input(5) + block.channel;
        t.stream = stream;
        tiles_of_.normalize(t);
      });
    });
  }

 private:
  using Block = Slabs::Block;

  NormTile normal(const Block& block, const float* factor, std::int64_t at) const {
    NormTile t;
    t.shape = shape_;
    t.x = read(0, at);
    t.y = written(0, at);
    t.mean = output(1) + block.grouped;
    t.factor = factor + block.grouped;
    t.beta = input(2) + block.channel;
    if (after_ == After::prelu) t.slope = input(3) + block.channel;
    if (after_ == After::add) t.other = read(3, at);
    t.after = after_;
    return t;
  }

  // Outputs `to` and `to` + 1 from sums `sum` and `sum` + 1, and the factor that goes with them.
  void moments(const Slabs::Slab& slab, const Block& block, std::int64_t sum, std::size_t gamma,
               double eps, std::size_t to, float* factor) const {
    double sums[16], squares[16];
    slab.total(block, sum, sums);
    slab.total(block, sum + 1, squares);
    const double inverse_count = 1.0 / static_cast<double>(samples());
    for (std::int64_t i = 0; i < tiles_.block; ++i) {
      const std::int64_t at = block.grouped + i;
      const double mean = sums[i] * inverse_count;
      const double variance = std::max(0.0, squares[i] * inverse_count - mean * mean);
      output(to)[at] = static_cast<float>(mean);
      output(to + 1)[at] = static_cast<float>(variance);
      factor[at] =
          static_cast<float>(norm_factor(input(gamma)[block.channel + i], output(to + 1)[at], eps));
    }
  }

  NormForward tiles_of_;
  bool pair_;
  double eps_, second_eps_;
  Slabs slabs_;
  After after_ = After::nothing;
};

std::string refuse_whole(const Node& node, const KernelEnvironment&) {
  const NormChain chain = NormChain::of(node);
  if (chain.tail == NormChain::Tail::add) {
    return chain.norm_follows ? refuse_tiles(node, {0, 3}, {0, 3}, true)
                              : refuse_tiles(node, {0, 3}, {0}, true);
  }
  if (!chain.norm_follows) return refuse_tiles(node, {0}, {0}, true);
  if (chain.tail == NormChain::Tail::nothing) return "lacks a norm right behind a norm";
  return refuse_tiles(node, {0}, {0, 3}, true);
}

}  // namespace

ChainKernel chains_of_own_statistics() {
  return {refuse_whole, make_kernel<WholeNorm>};
}

}  // namespace ftrain::cpu
