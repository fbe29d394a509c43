// Before the first step: do all ranks run the same job on the same data with the same program?
//
// Compared over ranks: ftrain's version, each loaded plugin's file, the job (without what may
// differ by rank), the data set's fingerprint, and the clocks. The rank that differs from most is
// named. Failure: ConfigError, PluginError or DataError with the rank, what it has and what the
// others have.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ftrain/config/table.h"
#include "ftrain/data/dataset.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"
#include "ftrain/plugin/api.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {

// Of sizes, classes and the bytes of some samples spread over the data set: cheap, and different
// for another version or order of it. DataError when one of them cannot be read.
FTRAIN_API std::uint64_t fingerprint(const Dataset& dataset);

// What one rank has.
struct RankFacts {
  std::string name;                                // "rank 3 on node07"
  std::string version, build;                      // ftrain's own
  std::map<std::string, std::uint64_t> libraries;  // each plugin library's checksum
  std::string job;                                 // resolved, without what differs by rank
  std::uint64_t data = 0;
  double clock = 0;  // seconds, read at the same moment on all ranks
};

// What is wrong between ranks, empty where nothing is.
struct Disagreement {
  std::string programs, jobs, data;  // each is a failure
  std::string clocks;                // a warning
};

// The majority is right; where there is none, rank 0 is.
FTRAIN_API Disagreement compare_ranks(const std::vector<RankFacts>& ranks);

// Collective, once the data set is open. Rank 0 throws what was found, the others a PeerError with
// the same text. A clock that is off by more than five seconds is a warning, not an error.
FTRAIN_API void check_ranks_agree(Communicator& communicator, const Job& job,
                                  const Registry& registry, const Dataset& dataset);

// Collective, once the step is compiled: what ranks exchange must lie alike in their memory, and
// machines whose processors differ may have chosen other layouts. Rank 0 throws a DeviceError.
FTRAIN_API void check_layouts_agree(Communicator& communicator, const Program& step,
                                    const std::string& device);

// Collective. "ranks: 4 on 2 machines, all-reduce 1.9 GB/s (16 MiB), 24 us (8 bytes)".
FTRAIN_API std::string measure_ranks(Communicator& communicator);

// The first rank's text, on every rank. Collective.
std::string shared_text(Communicator& communicator, std::string text);

}  // namespace ftrain
