// Puts the step's updates of running statistics, one for each batch norm and each a few numbers,
// into one op: on a GPU they cost their launches, and a small network has fifty of them.
//
// Merged are updates with the same momentum and condition, where nothing between them touches what
// they write. Every number is made as before, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/ops.h"

namespace ftrain::cuda {

// update_running_many. Inputs: ok, then of each norm running mean and variance, batch mean and
// variance. Attributes: momentum, and the counts of update_running.
struct ManyRunning {
  static constexpr std::size_t each = 4;

  std::size_t norms = 0;

  explicit ManyRunning(const Node& node) : norms((node.inputs.size() - 1) / each) {}
  // Where norm n's inputs begin.
  static constexpr std::size_t at(std::size_t n) { return 1 + n * each; }
};

struct RunningUpdate {
  Value mean, variance;  // the running ones
  ops::Moments batch;
  std::int64_t count = 1;  // samples of a group, see ops::update_running
};
void update_running_many(const std::vector<RunningUpdate>& norms, Value ok, double momentum);

std::unique_ptr<Graph> merge_running(const Graph& graph);

}  // namespace ftrain::cuda
