// Keeps a run's summary up to date: what its steps and verifications say, put together.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/observer.h"

namespace ftrain {

class RunRecord {
 public:
  // `started`: when the process began, for the time to the first step.
  RunRecord(std::string name, std::chrono::steady_clock::time_point started);

  // The time of training begins now; what came before was preparation. `step`, `epochs`: where a
  // continued run stands.
  void start(std::int64_t step, double epochs);
  // A step of so many seconds, `waited` of them for data. DeviceError when a hundred steps in a row
  // had no finite loss or gradient. Returns true at the first of such a row.
  bool add(const StepReport& report, double seconds, double waited);
  // Keeps the report; true when its mean accuracy over the sets is the best so far.
  bool add(const VerificationReport& report);
  void set_best(double accuracy, std::int64_t step);
  void set_skipped_samples(std::int64_t samples) { summary_.skipped_samples = samples; }
  // Of several ranks: how many, and the most memory that one of their processes has had.
  void set_ranks(std::int64_t ranks) { summary_.ranks = ranks; }
  void set_peak_memory(std::size_t bytes) { peak_of_ranks_ = bytes; }

  bool any() const { return steps_ > 0; }  // a step was added
  // As it stands now.
  const RunSummary& summary(const std::string& state);
  const RunSummary& last() const { return summary_; }

 private:
  std::chrono::steady_clock::time_point process_start_;
  std::optional<std::chrono::steady_clock::time_point> start_;
  RunSummary summary_;
  std::vector<double> speeds_;
  std::size_t peak_of_ranks_ = 0;
  double seconds_ = 0, waited_ = 0;
  std::int64_t steps_ = 0, skipped_in_a_row_ = 0;
};

// What a step that was skipped left as it was, in a line for people. `scaled`: of a scaled loss.
std::string skipped_text(const StepReport& report, bool scaled);

}  // namespace ftrain
