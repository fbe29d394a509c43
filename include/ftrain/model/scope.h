// Where a backbone builds: a graph, a name prefix, and how the step treats randomness and
// statistics.
//
//   Value forward(Scope& scope, Value x) const override {
//     x = layers::conv2d(scope, "conv1", x, 64, 3, {.stride = 1, .padding = 1});
//     ...
//   }
// Ownership: a Scope borrows its Build. Threads: one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/ops.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// What is the same for every layer of one graph.
struct Build {
  Graph& graph;
  bool training = true;
  DType dtype = DType::f32;
  std::uint64_t seed = 0;
  Value step = {};  // i64 scalar input; training only
  std::int64_t rank = 0, ranks = 1;
  std::int64_t first_sample = 0;  // global index of this rank's first sample in a step
  // Batch-norm statistics: groups of samples within the rank's batch, or all ranks together.
  std::int64_t norm_groups = 1;
  bool global_norm = false;
  // Writes that wait for the step's finite check: emitted by the trainer with `ok`.
  std::vector<std::function<void(Value ok)>> at_end = {};
};

class FTRAIN_API Scope {
 public:
  explicit Scope(Build& build, std::string prefix = {})
      : build_(build), prefix_(std::move(prefix)) {}

  // "layer1" -> names below it begin with "layer1.".
  Scope operator/(const std::string& name) const { return Scope(build_, path(name)); }
  Build& build() const { return build_; }
  Graph& graph() const { return build_.graph; }
  std::string path(const std::string& name) const {
    return prefix_.empty() ? name : prefix_ + "." + name;
  }
  // A state of that name below this scope: the existing one when it is there.
  Value parameter(const std::string& name, Shape shape, Initializer initializer,
                  bool trainable = true) const;
  Value statistic(const std::string& name, Shape shape, double initial) const;

 private:
  Build& build_;
  std::string prefix_;
};

}  // namespace ftrain
