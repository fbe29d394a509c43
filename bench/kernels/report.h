// The table at the end: where a step's milliseconds go, op by op, against the machine's ceilings.
#pragma once

#include <benchmark/benchmark.h>

#include <vector>

#include "bench/kernels/peaks.h"
#include "bench/kernels/problems.h"

namespace ftrain::bench {

// A problem's least possible seconds: its work at the peak, or its traffic at the memory's speed,
// whichever is longer.
double ceiling_seconds(const Problem& problem, const Peaks& peaks);

// Google Benchmark's own lines, then the table.
class StepReport : public benchmark::ConsoleReporter {
 public:
  StepReport(const std::vector<Problem>& problems, const Peaks& peaks)
      : ConsoleReporter(OO_Tabular), problems_(problems), peaks_(peaks) {}
  void ReportRuns(const std::vector<Run>& runs) override;
  void Finalize() override;

 private:
  const std::vector<Problem>& problems_;
  const Peaks& peaks_;
  std::vector<std::pair<const Problem*, double>> seconds_;  // of one launch
};

}  // namespace ftrain::bench
