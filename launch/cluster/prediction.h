// A job on a described cluster, predicted for several numbers of devices.
#pragma once

#include <string>
#include <vector>

#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"
#include "launch/cluster/description.h"
#include "launch/cluster/work.h"

namespace ftrain::cluster {

struct Prediction {
  std::string parallelism;
  Ranks ranks;
  std::int64_t samples = 0;  // of a rank in a step
  Compute compute;
  StepTime time;
  Traffic traffic;  // what a rank sends in a step, at most
  double samples_per_second = 0;
  double speedup = 0;        // over one device: that many samples, all classes
  std::size_t resident = 0;  // bytes of a rank: parameters, slots, inputs
  std::size_t arena = 0;     // bytes of a rank: everything else of a step
  bool fits = true;          // resident and arena, in the device's memory
  double efficiency() const { return speedup / static_cast<double>(ranks.count()); }
};

struct ClusterPlan {
  Description cluster;
  std::string precision;
  const Measured* measured = nullptr;  // of `cluster`: where the network was measured
  std::int64_t classes = 0;
  Work work;  // at one device
  std::vector<std::string> notes;
  std::vector<Prediction> counts;      // the job's parallelism: 1, 2, 4, ... up to all devices
  std::vector<Prediction> strategies;  // every parallelism, on all devices, each against itself

  ClusterPlan() = default;
  ClusterPlan(const ClusterPlan&) = delete;
  ClusterPlan& operator=(const ClusterPlan&) = delete;
};

// Fills `plan`, whose `cluster` and `precision` the caller has set. `draft`: the job without
// kernels to measure. Failure: what planning the job throws.
void predict(const Job& draft, Registry& registry, ClusterPlan& plan);

// The job's [device] precision.
std::string precision_of(const Job& job);

std::string cluster_text(const ClusterPlan& plan, const std::string& job);
std::string cluster_json(const ClusterPlan& plan, const std::string& job);

}  // namespace ftrain::cluster
