#include "core/train/run_record.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/process.h"
#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using Clock = std::chrono::steady_clock;

// So many steps in a row without a finite loss: the training has diverged.
constexpr std::int64_t diverged_after = 100;

// The first steps fill caches and the ring of batches: they say nothing of the speed.
constexpr std::int64_t unsteady_steps = 3;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

RunRecord::RunRecord(std::string name, Clock::time_point started) : process_start_(started) {
  summary_.name = std::move(name);
  summary_.state = "running";
}

void RunRecord::start(std::int64_t step, double epochs) {
  start_ = Clock::now();
  summary_.steps = step;
  summary_.epochs = epochs;
}

bool RunRecord::add(const StepReport& report, double seconds, double waited) {
  if (steps_ == 0) summary_.seconds_to_first_step = seconds_since(process_start_);
  summary_.steps = report.step;
  summary_.epochs = report.epoch;
  summary_.loss = report.loss;
  summary_.metrics = report.metrics;
  if (++steps_ > unsteady_steps) speeds_.push_back(report.samples_per_second);
  seconds_ += seconds;
  waited_ += waited;
  if (!report.skipped) {
    skipped_in_a_row_ = 0;
    return false;
  }
  ++summary_.skipped_steps;
  if (++skipped_in_a_row_ >= diverged_after) {
    throw DeviceError("the last " + std::to_string(diverged_after) +
                      " steps had no finite loss or gradient: the training has diverged; lower "
                      "optimizer.rate, set optimizer.clip or check the data");
  }
  return skipped_in_a_row_ == 1;
}

bool RunRecord::add(const VerificationReport& report) {
  summary_.accuracy = report.accuracy;
  double mean = 0;
  for (const auto& [set, accuracy] : report.accuracy) mean += accuracy.mean;
  mean /= static_cast<double>(report.accuracy.size());
  if (summary_.best && mean <= *summary_.best) return false;
  set_best(mean, report.step);
  return true;
}

void RunRecord::set_best(double accuracy, std::int64_t step) {
  summary_.best = accuracy;
  summary_.best_step = step;
}

const RunSummary& RunRecord::summary(const std::string& state) {
  summary_.state = state;
  if (!speeds_.empty()) {
    std::vector<double> speeds = speeds_;
    const auto middle = speeds.begin() + std::ssize(speeds) / 2;
    std::nth_element(speeds.begin(), middle, speeds.end());
    summary_.samples_per_second = *middle;
  }
  if (seconds_ > 0) summary_.data_wait = waited_ / seconds_;
  summary_.peak_memory_bytes = std::max(peak_of_ranks_, peak_memory_bytes());
  if (start_) summary_.seconds = seconds_since(*start_);
  return summary_;
}

// Class centers are updated before the gradient of the backbone is known.
std::string skipped_text(const StepReport& report, bool scaled) {
  const std::string step = "step " + std::to_string(report.step) + ": ";
  if (!std::isfinite(report.loss)) return step + "the loss is not finite; the step changed nothing";
  return step + "the gradient is not finite; the backbone stays as it was" +
         (scaled ? ", and the loss scale is halved" : "");
}

}  // namespace ftrain
