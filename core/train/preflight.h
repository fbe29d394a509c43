// Before the first step: do all ranks run the same job on the same data with the same program?
//
// Compared over ranks: ftrain's version, each loaded plugin's build, the job (without what differs
// by rank), the data set's fingerprint, and the clocks. The rank that differs from most is named.
// Failure: ConfigError, PluginError or DataError with the rank, what it has and what the others
// have.
#pragma once

#include <cstdint>
#include <string>

#include "core/config/table.h"
#include "core/data/dataset.h"
#include "core/plugin/api.h"
#include "core/plugin/registry.h"
#include "core/runtime/communicator.h"

namespace ftrain {

// Of sizes, classes and the bytes of some samples spread over the data set: cheap, and different
// for another version or order of it. DataError when one of them cannot be read.
FTRAIN_API std::uint64_t fingerprint(const Dataset& dataset);

// Collective, once the data set is open. A clock that is off by more than five seconds is a
// warning, not an error.
FTRAIN_API void check_ranks_agree(Communicator& communicator, const Job& job,
                                  const Registry& registry, const Dataset& dataset);

// Collective. "ranks: 4 on 2 machines, all-reduce 1.9 GB/s (16 MiB), 24 us (8 bytes)".
FTRAIN_API std::string measure_ranks(Communicator& communicator);

}  // namespace ftrain
