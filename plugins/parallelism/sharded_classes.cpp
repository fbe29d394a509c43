#include "plugins/parallelism/sharded_classes.h"

#include <algorithm>
#include <cmath>

#include "ftrain/model/head_pass.h"
#include "ftrain/ops.h"
#include "plugins/parallelism/parts.h"

namespace ftrain {
namespace {

// Slots for the sampled rows: the expectation, six deviations, and the batch's own classes, which
// are always in.
std::int64_t capacity_of(double rate, std::int64_t classes, std::int64_t samples) {
  const double expected = rate * static_cast<double>(classes);
  const double room = expected + 6 * std::sqrt(expected * (1 - rate));
  return std::min(classes, static_cast<std::int64_t>(std::ceil(room)) + samples);
}

// Of what all ranks' samples have, this rank's.
Value own_rows(const StepBuild& build, Value all) {
  return ops::slice_rows(all, build.rank * build.batch, build.batch);
}

}  // namespace

ClassCenterStep sharded_class_centers(const StepBuild& build, Value embedding, Value labels,
                                      Value weight, const std::vector<Value>& slots,
                                      std::int64_t first_class, const ClassSampling& sampling,
                                      std::optional<DType> wire, ops::RowUpdate update,
                                      PartialGradients& so_far) {
  const std::int64_t ranks = build.ranks, batch = build.batch * ranks;
  const ops::Normalized normalized = ops::normalize(embedding);
  const Value rows = build.margin->normalized ? normalized.rows : embedding;
  const Value features = ops::all_gather(rows, ranks, wire);
  const Value norms = ops::all_gather(normalized.norms, ranks);
  const Value all_labels = ops::all_gather(labels, ranks);

  std::int64_t walked = weight.shape()[0];
  if (sampling.rate < 1) {
    const std::int64_t local = walked;
    walked = capacity_of(sampling.rate, local, batch * build.parts);
    if (!so_far.rows.valid()) {
      const Value of_step =
          build.parts == 1 ? all_labels : ops::all_gather(build.step_labels, ranks);
      so_far.rows = ops::sample_classes(of_step, build.step,
                                        {first_class, local, walked, sampling.rate, build.seed});
    }
  }
  const Value sampled = so_far.rows;
  ops::ClassCenters centers{build.margin, first_class,
                            1.0 / static_cast<double>(batch * build.parts),
                            Parallelism::keeps_cosines(walked, batch, weight)};
  const Value target =
      ops::all_reduce_sum(ops::target_cosine(features, all_labels, weight, centers), ranks);
  const HeadPass head(build, {own_rows(build, target), normalized.norms, labels}, true);
  centers.terms = head.terms();
  const ops::ClassStats stats =
      ops::class_center_forward(features, norms, all_labels, weight, target, sampled, centers);
  // One collective for the maxima and the sums.
  const Value all_stats = ops::all_gather(ops::reshape(stats.stats, {1, batch, 2}), ranks);
  const auto [mean, log_sum] = ops::margin_loss(all_stats, norms, target, centers);
  const Value loss = head.add_loss(share_of_step(build, mean, 1));
  const Value ok = add_loss(loss, so_far);
  const EmitIn backward(build.graph, Phase::backward);
  std::vector<Seed> seeds;
  head.add_seeds(seeds, target, norms, log_sum, centers);
  if (build.part + 1 < build.parts) {
    const auto [gradient, dweight] =
        ops::class_center_backward(features, norms, all_labels, weight, target, log_sum, stats,
                                   sampled, centers, so_far.weight);
    so_far.weight = dweight;
    seeds.push_back({features, gradient});
    return {loss, ok, seeds};
  }
  update.all_rows = sampling.all_rows;
  update.earlier = so_far.weight;
  const Value gradient =
      ops::class_center_update(features, norms, all_labels, weight, target, log_sum, stats, sampled,
                               slots, build.rate, ok, centers, update);
  seeds.push_back({features, gradient});
  return {loss, ok, seeds};
}

HeadSignals sharded_signals(const StepBuild& build, Value embedding, Value labels, Value weight,
                            std::int64_t first_class, std::optional<DType> wire) {
  const ops::Normalized normalized = ops::normalize(embedding);
  const Value rows = build.margin->normalized ? normalized.rows : embedding;
  const Value features = ops::all_gather(rows, build.ranks, wire);
  const Value all_labels = ops::all_gather(labels, build.ranks);
  const Value target = ops::all_reduce_sum(
      ops::target_cosine(features, all_labels, weight, {build.margin, first_class}), build.ranks);
  return {own_rows(build, target), normalized.norms, labels};
}

}  // namespace ftrain
