#include "launch/cluster/prediction.h"

#include <algorithm>

#include "core/train/step_graph.h"
#include "launch/step_plan.h"

namespace ftrain::cluster {
namespace {

struct BackboneKeys final : Configurable {
  std::optional<std::int64_t> depth;
  void configure(Keys& keys) override { keys.bind("depth", depth, "the depth"); }
};

const Measured* measured_of(const Job& job, const Description& cluster,
                            const std::string& precision) {
  const Table table = job.root().table("backbone");
  const std::string plugin = table.text("plugin");
  BackboneKeys backbone;
  table.read(backbone, table.keys());
  for (const Measured& measured : cluster.device.measured) {
    if (measured.backbone == plugin && measured.precision == precision &&
        (!measured.depth || measured.depth == backbone.depth)) {
      return &measured;
    }
  }
  return nullptr;
}

// Whether class centers are stored as data_parallel on several ranks does not take them.
bool stores_apart(const Job& job) {
  const Table table = job.root().table("parallelism");
  return table.text("centers", "fp32") != "fp32" ||
         table.text("centers_memory", "device") == "host";
}

}  // namespace

std::string precision_of(const Job& job) {
  return job.root().table("device").text("precision", "fp32");
}

void predict(const Job& draft, Registry& registry, ClusterPlan& plan) {
  const Description& cluster = plan.cluster;
  plan.measured = measured_of(draft, cluster, plan.precision);
  const std::string own = draft.root().table("parallelism").text("plugin", "data_parallel");
  const auto at = [&](std::int64_t count, const std::string& parallelism, double one_device) {
    Prediction prediction;
    prediction.parallelism = parallelism;
    prediction.ranks = place(count, cluster.devices);
    launch::PlanVariant variant;
    variant.ranks = prediction.ranks.count();
    variant.parallelism = parallelism;
    variant.process = 0;
    const launch::StepPlan step(draft, registry, variant);
    const auto graph =
        training_graph(step.assembly, step.classes, 0, static_cast<int>(prediction.ranks.count()));
    const Work work = work_of(*graph, step.assembly.run.accumulate);
    if (plan.counts.empty()) {
      plan.work = work;
      plan.classes = step.classes;
      plan.notes = step.notes;
    }
    prediction.samples = static_cast<std::int64_t>(work.samples);
    prediction.compute = compute_of(work, cluster.device, plan.precision, plan.measured);
    const double host =
        cluster.data_rate
            ? work.samples * static_cast<double>(prediction.ranks.each) / *cluster.data_rate
            : 0;
    prediction.time =
        step_time(prediction.compute, prediction.compute.backward / work.parts, work.collectives,
                  prediction.ranks, cluster.links, cluster.pace, host);
    prediction.traffic = traffic(work.collectives, prediction.ranks);
    prediction.samples_per_second =
        work.samples * static_cast<double>(prediction.ranks.count()) / prediction.time.total();
    prediction.speedup = count == 1 ? 1 : prediction.samples_per_second / one_device;
    prediction.resident = step.training.plan.resident_bytes;
    prediction.arena = step.training.plan.arena_bytes;
    prediction.fits =
        static_cast<double>(prediction.resident + prediction.arena) <= cluster.device.memory;
    return prediction;
  };
  plan.counts.push_back(at(1, own, 0));
  const double one = plan.counts[0].samples_per_second;
  for (std::int64_t count = 2; count < cluster.devices; count *= 2) {
    plan.counts.push_back(at(count, own, one));
  }
  // Beyond one node whole nodes are taken.
  for (std::int64_t nodes = 1; nodes < cluster.nodes; nodes *= 2) {
    if (nodes * cluster.devices > 1) plan.counts.push_back(at(nodes * cluster.devices, own, one));
  }
  if (cluster.size() > 1) plan.counts.push_back(at(cluster.size(), own, one));
  for (const char* parallelism : {"data_parallel", "model_parallel", "partial_fc"}) {
    if (parallelism == own) {
      plan.strategies.push_back(plan.counts.back());
      continue;
    }
    if (parallelism == std::string_view("data_parallel") && stores_apart(draft)) continue;
    const double alone = at(1, parallelism, 0).samples_per_second;
    plan.strategies.push_back(at(cluster.size(), parallelism, alone));
  }
}

}  // namespace ftrain::cluster
