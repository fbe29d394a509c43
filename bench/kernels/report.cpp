#include "bench/kernels/report.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "ftrain/graph/opdef.h"

namespace ftrain::bench {

double ceiling_seconds(const Problem& problem, const Peaks& peaks) {
  const double flops = problem.bf16 && peaks.bf16_flops > 0 ? peaks.bf16_flops : peaks.f32_flops;
  return std::max(problem.flops / flops, problem.bytes / peaks.copy_bytes);
}

void StepReport::ReportRuns(const std::vector<Run>& runs) {
  ConsoleReporter::ReportRuns(runs);
  for (const Run& run : runs) {
    if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
    const auto n = static_cast<std::size_t>(run.counters.at("n").value);
    seconds_.emplace_back(&problems_[n], run.GetAdjustedRealTime() / 1e3);
  }
}

void StepReport::Finalize() {
  struct Row {
    double seconds = 0, ceiling = 0, flops = 0, bytes = 0;
    std::int64_t nodes = 0;
  };
  std::map<std::string, Row> rows;
  Row all;
  for (const auto& [problem, seconds] : seconds_) {
    const auto count = static_cast<double>(problem->count);
    for (Row* row :
         {&rows[std::string(problem->node->op->name) + " by " + std::string(problem->def->name)],
          &all}) {
      row->seconds += count * seconds;
      row->ceiling += count * ceiling_seconds(*problem, peaks_);
      row->flops += count * problem->flops;
      row->bytes += count * problem->bytes;
      row->nodes += problem->count;
    }
  }
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  sorted.emplace_back("all", all);
  std::printf("\nmeasured peaks: %s\n\n%-58s %6s %9s %6s %9s %8s %8s\n", peaks_.text().c_str(),
              "a step, by op and kernel", "nodes", "ms", "share", "GFLOP/s", "GB/s", "ceiling");
  for (const auto& [name, row] : sorted) {
    std::printf("%-58s %6lld %9.2f %5.1f%% %9.1f %8.1f %7.0f%%\n", name.c_str(),
                static_cast<long long>(row.nodes), 1e3 * row.seconds,
                100 * row.seconds / all.seconds, row.flops / row.seconds / 1e9,
                row.bytes / row.seconds / 1e9, 100 * row.ceiling / row.seconds);
  }
}

}  // namespace ftrain::bench
