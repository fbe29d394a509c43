#include "core/graph/ops.h"
#include "core/model/parallelism.h"
#include "core/plugin/plugin.h"

namespace {

using namespace ftrain;

// Every rank holds all class centers and sees its own samples; gradients of both are summed. The
// dense gradient of the class centers exists here, because it must be summed before the update.
struct DataParallel final : Parallelism {
  ClassCenterStep class_centers(const StepBuild& build, Value embedding, Value labels,
                                PartialGradients&) const override {
    const std::int64_t ranks = build.ranks;
    const auto [weight, slots] = centers(build, embedding, {0, build.classes});
    const auto [unit_rows, norms] = ops::normalize(embedding);
    const Value features = build.margin->normalized ? unit_rows : embedding;
    const ops::ClassCenters options{build.margin, 0, 1.0 / static_cast<double>(build.batch * ranks),
                                    keeps_cosines(build.classes, build.batch, weight)};
    const Value target = ops::target_cosine(features, labels, weight, options);
    const ops::ClassStats stats =
        ops::class_center_forward(features, norms, labels, weight, target, {}, options);
    const auto [own_loss, log_sum] =
        ops::margin_loss(ops::reshape(stats.stats, {1, build.batch, 2}), norms, target, options);
    const Value loss = ranks == 1 ? own_loss
                                  : ops::scale(ops::all_reduce_sum(own_loss, ranks),
                                               1.0 / static_cast<double>(ranks));
    const Value ok = ops::all_finite({loss});
    const TensorPolicy policy = build.optimizer.center_policy();
    const auto update = build.optimizer.update();
    if (ranks == 1) {
      const Value gradient = ops::class_center_update(
          features, norms, labels, weight, target, log_sum, stats, {}, slots, build.rate, ok,
          options, {update, policy.rate_factor, policy.decay, false});
      return {loss, ok, {{features, gradient}}};
    }
    const auto [gradient, own_dweight] = ops::class_center_backward(
        features, norms, labels, weight, target, log_sum, stats, {}, options);
    const Value dweight = ops::all_reduce_sum(own_dweight, ranks);
    ops::optimizer_update(weight, slots, dweight, ops::cast(build.rate, weight.dtype()), {}, ok,
                          update, policy.rate_factor, policy.decay);
    return {loss, ok, {{features, gradient}}};
  }
};

}  // namespace

FTRAIN_PLUGIN(data_parallel, registry) {
  registry.add<ftrain::Parallelism, DataParallel>("data_parallel",
                                                  "everything replicated, gradients summed");
}
