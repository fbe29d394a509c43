#include "ftrain/base/error.h"
#include "ftrain/model/head_pass.h"
#include "ftrain/model/parallelism.h"
#include "ftrain/ops.h"
#include "ftrain/plugin.h"
#include "plugins/parallelism/parts.h"

namespace {

using namespace ftrain;

// Every rank holds all class centers and sees its own samples; gradients of both are summed. The
// dense gradient of the class centers exists here, because it must be summed before the update.
struct DataParallel final : Parallelism {
  ClassCenterStep class_centers(const StepBuild& build, Value embedding, Value labels,
                                PartialGradients& so_far) const override {
    const std::int64_t ranks = build.ranks;
    if (ranks > 1) {
      refuse_stored_apart();
      refuse_counted_rows(build.optimizer);
    }
    const auto [weight, slots, row_steps] = centers(build, embedding, {0, build.classes});
    const auto [unit_rows, norms] = ops::normalize(embedding);
    const Value features = build.margin->normalized ? unit_rows : embedding;
    ops::ClassCenters options{build.margin, 0,
                              1.0 / static_cast<double>(build.batch * ranks * build.parts),
                              keeps_cosines(build.classes, build.batch, weight)};
    const Value target = ops::target_cosine(features, labels, weight, options);
    const HeadPass head(build, {target, norms, labels}, false);
    options.terms = head.terms();
    const ops::ClassStats stats =
        ops::class_center_forward(features, norms, labels, weight, target, {}, options);
    const auto [own_loss, log_sum] =
        ops::margin_loss(ops::reshape(stats.stats, {1, build.batch, 2}), norms, target, options);
    const Value loss =
        head.add_loss(share_of_step(build, ops::all_reduce_sum(own_loss, ranks), ranks));
    const Value ok = add_loss(loss, so_far);
    const EmitIn backward(build.graph, Phase::backward);
    std::vector<Seed> seeds;
    head.add_seeds(seeds, target, norms, log_sum, options);
    ops::RowUpdate update = row_update(build, row_steps);
    const bool last = build.part + 1 == build.parts;
    if (last && ranks == 1) {
      update.earlier = so_far.weight;
      const Value gradient =
          ops::class_center_update(features, norms, labels, weight, target, log_sum, stats, {},
                                   slots, build.rate, ok, options, update);
      seeds.push_back({features, gradient});
      return {loss, ok, seeds};
    }
    const auto [gradient, dweight] = ops::class_center_backward(
        features, norms, labels, weight, target, log_sum, stats, {}, options, so_far.weight);
    so_far.weight = dweight;
    if (last) {
      ops::optimizer_update(weight, slots, ops::all_reduce_sum(dweight, ranks),
                            ops::cast(build.rate, weight.dtype()), {}, ok, build.step,
                            update.update, update.rate_factor, update.decay);
    }
    seeds.push_back({features, gradient});
    return {loss, ok, seeds};
  }

  HeadSignals signals(const StepBuild& build, Value embedding, Value labels) const override {
    const Value weight = centers(build, embedding, {0, build.classes}).weight;
    const auto [unit_rows, norms] = ops::normalize(embedding);
    const Value features = build.margin->normalized ? unit_rows : embedding;
    return {ops::target_cosine(features, labels, weight, {build.margin}), norms, labels};
  }

 private:
  // Several ranks update all class centers at once with a gradient that is as large in fp32, which
  // would leave little of what is to be saved.
  void refuse_stored_apart() const {
    const bool bf16 = centers_precision == "bf16";
    if (!bf16 && centers_memory != "host") return;
    throw ConfigError("[parallelism] " +
                      std::string(bf16 ? "centers = \"bf16\"" : "centers_memory = \"host\"") +
                      ": data_parallel on several ranks has an fp32 gradient of all class centers "
                      "in the device's memory; set plugin = \"model_parallel\" or \"partial_fc\", "
                      "which update the rows of a rank in place, or run one rank");
  }

  // Several ranks update all class centers at once, by one number: that of the step.
  static void refuse_counted_rows(const Optimizer& optimizer) {
    if (!optimizer.counts_rows()) return;
    throw ConfigError(
        "[optimizer] counts the updates of each class center, and data_parallel on several ranks "
        "updates all of them in every step; set center_steps = \"global\", which counts the same, "
        "or [parallelism] plugin = \"model_parallel\" or \"partial_fc\"");
  }
};

}  // namespace

FTRAIN_PLUGIN(data_parallel, registry) {
  registry.add<ftrain::Parallelism, DataParallel>("data_parallel",
                                                  "everything replicated, gradients summed");
}
