#include "ftrain/plugin.h"
#include "plugins/parallelism/sharded_classes.h"

namespace {

using namespace ftrain;

struct ModelParallel final : Parallelism {
  ClassCenterStep class_centers(const StepBuild& build, Value embedding, Value labels,
                                PartialGradients& so_far) const override {
    const Shard own = shard(build.classes, build.rank, build.ranks);
    const auto [weight, slots, row_steps] = centers(build, embedding, own);
    return sharded_class_centers(build, embedding, labels, weight, slots, own.first, {},
                                 wire_of(features), row_update(build, row_steps), so_far);
  }

  HeadSignals signals(const StepBuild& build, Value embedding, Value labels) const override {
    const Shard own = shard(build.classes, build.rank, build.ranks);
    const Value weight = centers(build, embedding, own).weight;
    return sharded_signals(build, embedding, labels, weight, own.first, wire_of(features));
  }
};

}  // namespace

FTRAIN_PLUGIN(model_parallel, registry) {
  registry.add<ftrain::Parallelism, ModelParallel>(
      "model_parallel", "class centers split over ranks, backbone replicated");
}
