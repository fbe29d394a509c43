// scaling_bench CLUSTER PUBLISHED [--set KEY=VALUE]...: what the model of `ftrain plan --cluster`
// says of published figures, a row each, then the deviation over all.
#include <cstdio>
#include <iostream>

#include "bench/scaling/published.h"
#include "ftrain/base/error.h"

int main(int count, char** words) try {
  using namespace ftrain::cluster;
  const std::vector<std::string> given(words + 1, words + count);
  std::vector<std::string> files, sets;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const bool set = given[i] == "--set" && i + 1 < given.size();
    (set ? sets : files).push_back(given[set ? ++i : i]);
  }
  if (files.size() != 2) {
    std::cerr << "usage: scaling_bench CLUSTER.toml PUBLISHED.csv [--set KEY=VALUE]...\n";
    return 2;
  }
  const Description cluster = load(files[0], "fp32", sets);
  const std::vector<Published> rows = read_published(files[1]);
  std::puts("| network | classes | parallelism | batch | ranks | published | predicted | error |");
  std::puts("|---|---|---|---|---|---|---|---|");
  for (const Published& row : rows) {
    const double predicted = predict(row, cluster);
    std::printf("| %s%s | %ld | %s | %ld | %ld | %.1f | %.1f | %+.1f %%%s |\n", row.network.c_str(),
                row.source == "plsc" ? " (PLSC)" : "", static_cast<long>(row.classes),
                row.parallelism.c_str(), static_cast<long>(row.batch), static_cast<long>(row.ranks),
                row.samples_per_second, predicted, 100 * (predicted / row.samples_per_second - 1),
                row.fitted ? "" : ", not fitted");
  }
  const Deviation found = deviation(rows, cluster);
  std::printf("\n%d rows: rms %.6f, worst %.6f\n", found.rows, found.rms, found.worst);
  return 0;
} catch (const ftrain::Error& error) {
  std::cerr << error.kind() << ": " << error.what() << "\n";
  return static_cast<int>(error.exit_code());
}
