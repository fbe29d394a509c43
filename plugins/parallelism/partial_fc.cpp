// Partial FC: each step works on a random part of the classes. An et al., "Partial FC" (2021) and
// "Killing Two Birds with One Stone" (2022).
#include <algorithm>
#include <optional>

#include "ftrain/plugin.h"
#include "plugins/parallelism/sharded_classes.h"

namespace {

using namespace ftrain;

struct PartialFc final : Parallelism {
  double sample_rate = 0.1;
  std::optional<std::int64_t> num_sample;
  std::string rows = "sampled";

  void configure(Keys& keys) override {
    Parallelism::configure(keys);
    keys.bind("sample_rate", sample_rate, "share of the classes in a step, 0 to 1", between(0, 1));
    keys.bind("num_sample", num_sample,
              "expected number of classes in a step over all ranks, instead of sample_rate",
              at_least(1));
    keys.bind("rows", rows,
              "sampled: other class centers rest (arcface_torch's first Partial FC, MXNet); all: "
              "they keep moving by momentum and decay (its V2)",
              one_of(std::vector<std::string>{"sampled", "all"}));
  }

  ClassCenterStep class_centers(const StepBuild& build, Value embedding, Value labels,
                                PartialGradients& so_far) const override {
    const Shard own = shard(build.classes, build.rank, build.ranks);
    const auto [weight, slots, row_steps] = centers(build, embedding, own);
    const double rate =
        num_sample
            ? std::min(1.0, static_cast<double>(*num_sample) / static_cast<double>(build.classes))
            : sample_rate;
    return sharded_class_centers(build, embedding, labels, weight, slots, own.first,
                                 {rate, rows == "all"}, wire_of(features),
                                 row_update(build, row_steps), so_far);
  }

  HeadSignals signals(const StepBuild& build, Value embedding, Value labels) const override {
    const Shard own = shard(build.classes, build.rank, build.ranks);
    const Value weight = centers(build, embedding, own).weight;
    return sharded_signals(build, embedding, labels, weight, own.first, wire_of(features));
  }
};

}  // namespace

FTRAIN_PLUGIN(partial_fc, registry) {
  registry.add<ftrain::Parallelism, PartialFc>(
      "partial_fc", "class centers split over ranks, a random part of them in each step");
}
