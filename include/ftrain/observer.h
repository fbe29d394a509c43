// Who is told how a run goes: the console, JSON lines, other programs.
//
// Observers are told by the first rank's trainer, on its thread, in the order of events: every step
// once, and all steps up to a verification, a checkpoint or a summary before it. Where a device
// runs ahead of its host, a step is told while the next one is under way. Observers must not throw
// for want of a place to write in the middle of a run: they warn once and go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/base/named_value.h"
#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"
#include "ftrain/verify/protocol.h"

namespace ftrain {

struct RunInfo {
  std::string name;
  std::filesystem::path folder;
  std::int64_t steps = 0, steps_per_epoch = 0;
  std::int64_t global_batch = 0;
  std::int64_t first_step = 0;  // not 0 when resumed
};

struct StepReport {
  std::int64_t step = 0;  // counts from 1: this many steps are done
  double epoch = 0;       // epochs done, with fraction
  double loss = 0, rate = 0, gradient_norm = 0;
  double samples_per_second = 0;  // of this step
  double data_wait = 0;           // share of this step's time spent waiting for data
  bool skipped = false;           // not finite: nothing was updated
  // What the step itself reports (ftrain/model/report_scalar.h), in the order of the graph.
  std::vector<NamedValue> metrics = {};
};

struct VerificationReport {
  std::int64_t step = 0;
  std::map<std::string, Accuracy> accuracy;  // by set
};

struct RunSummary {
  std::string name, state;  // running, done, interrupted, failed
  std::int64_t steps = 0;
  double epochs = 0, loss = 0;
  std::vector<NamedValue> metrics;  // of the last step
  std::map<std::string, Accuracy> accuracy;
  std::optional<double> best;  // best mean accuracy over sets, at best_step
  std::int64_t best_step = 0;
  double samples_per_second = 0;      // median over steady steps
  double data_wait = 0;               // share of the time
  std::size_t peak_memory_bytes = 0;  // of the process that has the most
  std::int64_t ranks = 1;
  double seconds = 0, seconds_to_first_step = 0;
  std::int64_t skipped_steps = 0, skipped_samples = 0;
};

class FTRAIN_API Observer : public Configurable {
 public:
  static constexpr const char* kind = "observer";
  ~Observer() override;

  virtual void on_start(const RunInfo&) {}
  virtual void on_step(const StepReport&) {}
  virtual void on_verification(const VerificationReport&) {}
  virtual void on_checkpoint(std::int64_t step, const std::filesystem::path& path) {
    (void)step;
    (void)path;
  }
  // At every verification and at the end.
  virtual void on_summary(const RunSummary&) {}
};

}  // namespace ftrain
