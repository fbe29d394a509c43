// Parallelism: where class centers and batches live.
//
// A strategy rewrites the step with ops; it owns no kernels. It is given the embedding of this
// rank's samples and emits everything from there to the loss and the update of the class centers,
// then the reduction of the backbone's gradients. Every loss and gradient is of the mean over the
// global batch, so gradients of ranks add up.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "ftrain/config/keys.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/graph/graph.h"
#include "ftrain/model/head_graph.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/ops.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// What a strategy builds with.
struct StepBuild {
  Graph& graph;
  std::int64_t rank = 0, ranks = 1;
  std::int64_t batch = 0;    // per rank, of one part (see `parts`)
  std::int64_t classes = 0;  // of the data, over all ranks
  std::uint64_t seed = 0;
  Value step;  // i64 scalar
  Value rate;  // f32 scalar
  const Optimizer& optimizer;
  std::shared_ptr<const Margin> margin;
  // Gradient accumulation: a step takes its samples in so many parts, one after the other, and this
  // is part number `part`. Losses and gradients are of the mean over all parts of all ranks.
  std::int64_t parts = 1, part = 0;
  Value step_labels = {};    // i64 [parts * batch]: those of all parts; invalid with one part
  HeadStep* head = nullptr;  // the head's graph half; nullptr: it has none
};

// What earlier parts of a step leave to the next one; the strategy's own.
struct PartialGradients {
  Value weight;  // the class centers' gradient so far; invalid before the first part
  Value rows;    // the sampled rows of the step, where a strategy samples
  Value loss;    // the sum of the parts' losses: one that is not finite must stop the update
};

struct ClassCenterStep {
  Value loss;               // scalar, the same on every rank: the part's share of the step's loss
  Value ok;                 // scalar f32: 1 when the loss is finite
  std::vector<Seed> seeds;  // where the backward walk to the backbone begins
};

class FTRAIN_API Parallelism : public Configurable {
 public:
  static constexpr const char* kind = "parallelism";
  ~Parallelism() override;

  // Binds `batch_norm`; strategies add their own keys.
  void configure(Keys& keys) override;

  // embedding [batch, width], labels i64 [batch] (global class numbers). The class centers are the
  // state "centers.weight" with slots "centers.weight.SLOT". They are updated in the last part of a
  // step; earlier parts add to `so_far`.
  virtual ClassCenterStep class_centers(const StepBuild& build, Value embedding, Value labels,
                                        PartialGradients& so_far) const = 0;
  // What a head's statistics are of: this rank's samples of a part that runs ahead of the step, see
  // HeadGraph::statistics. A strategy whose class_centers makes a HeadPass implements it.
  virtual HeadSignals signals(const StepBuild& build, Value embedding, Value labels) const;
  // Sums of the ranks' gradients, by buckets.
  virtual std::vector<Value> reduce(const StepBuild& build, std::vector<Value> gradients) const;

  // Whether the cosines of `walked` rows of `weight` with `batch` samples are kept from the first
  // walk for the second: where they take an eighth of `weight` at most, or next to nothing.
  static bool keeps_cosines(std::int64_t walked, std::int64_t batch, Value weight);

  // "rank", "global", or the number of samples in a group.
  std::variant<std::int64_t, std::string> batch_norm = std::string("rank");
  // MiB of gradients that are summed over ranks at once, as soon as the backward walk has made
  // them.
  double bucket = 16;
  // What features travel in from rank to rank: "fp32", or "bf16" for half the bytes.
  std::string features = "fp32";

  // What class centers (and their slots) are stored in: "fp32", or "bf16" with stochastic rounding;
  // and where: in the "device"'s memory, or in the "host"'s, whence rows are fetched as they are
  // needed.
  std::string centers_precision = "fp32", centers_memory = "device";

 protected:
  // The rows [first, first + count) of `classes` that this rank owns: classes/ranks each, the first
  // classes % ranks ranks one more (arcface_torch, oneflow_face).
  struct Shard {
    std::int64_t first = 0, count = 0;
  };
  static Shard shard(std::int64_t classes, std::int64_t rank, std::int64_t ranks);
  // The class centers' state, N(0, 0.01), as wide as the embedding, and its slots: stored in the
  // embedding's type or bf16, in the device's memory or the host's. row_steps: the number of each
  // one's updates, where the optimizer wants it (Optimizer::counts_rows); else invalid.
  struct Centers {
    Value weight;
    std::vector<Value> slots;
    Value row_steps;
  };
  Centers centers(const StepBuild& build, Value embedding, Shard shard) const;
  // How class_center_update changes rows: the optimizer's, in this step, and how bf16 is rounded.
  ops::RowUpdate row_update(const StepBuild& build, Value row_steps) const;
};

}  // namespace ftrain
