// The figures that other trainers published for many devices, and what the model says of them.
//
// Of each configuration the published speed of one device is taken as given: what is predicted is
// how it grows. Failure: DataError for a table that cannot be read.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/cluster/description.h"

namespace ftrain::cluster {

struct Published {
  std::string source, network, parallelism;
  std::int64_t classes = 0, batch = 0, ranks = 1;  // batch: of a rank
  double rate = 1;                                 // share of the classes in a step
  double one_device = 0;                           // samples a second
  double samples_per_second = 0;                   // of `ranks` devices
  bool fitted = true;                              // false: contradicts its neighbours
};

std::vector<Published> read_published(const std::filesystem::path& csv);

// Samples a second.
double predict(const Published& row, const Description& cluster);

// Of predicted / published - 1 over the rows that are fitted.
struct Deviation {
  double rms = 0, worst = 0;
  int rows = 0;
};
Deviation deviation(const std::vector<Published>& rows, const Description& cluster);

}  // namespace ftrain::cluster
