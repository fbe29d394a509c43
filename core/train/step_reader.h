// The scalars of a run's steps, read in order.
//
// A device that runs ahead works on while they are read: one step may stay under way, and that of
// the step before it is read meanwhile. Ownership: borrows the step's executable. Threads: the
// rank's. Failure: what the executable throws while it is waited for.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "core/model/reported_scalars.h"
#include "ftrain/base/named_value.h"
#include "ftrain/device/device.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct StepScalars {
  std::int64_t step = 0;  // counts from 1
  float rate = 0;
  float loss = 0, gradient_norm = 0, ok = 0;
  std::array<float, 2> notes{};     // summed over the ranks; 0 with one rank
  std::vector<NamedValue> metrics;  // what the step reports
};

class FTRAIN_API StepReader {
 public:
  // `step`: of the graph that training_graph() makes.
  explicit StepReader(Executable& step);

  // run() was called for step `number`.
  void enqueued(std::int64_t number, float rate);
  // Steps that were enqueued and not read.
  std::size_t under_way() const { return steps_.size(); }
  // How many of them may stay so when the next one is enqueued.
  std::size_t most() const { return executable_.runs_ahead() ? 1 : 0; }
  // The first one's number.
  std::int64_t next() const { return steps_.front().number; }
  // Waits for the first one.
  StepScalars read();

 private:
  struct Step {
    std::int64_t number = 0;
    float rate = 0;
  };
  void fetch(std::string_view name, void* value);
  float fetch(std::string_view name);

  Executable& executable_;
  bool has_notes_ = false;
  std::vector<ReportedScalar> reported_;
  std::deque<Step> steps_;
};

}  // namespace ftrain
