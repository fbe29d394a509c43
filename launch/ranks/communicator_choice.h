// By which communicators the ranks of a job exchange: one for the host's memory, and one for the
// memory of GPUs where there is one for them.
//
// Failure: ConfigError for a [launch] communicator that does not do here.
#pragma once

#include <functional>
#include <string>

#include "core/train/settings.h"
#include "ftrain/plugin/registry.h"
#include "launch/ranks/rank_environment.h"

namespace ftrain::launch {

using HasPlugin = std::function<bool(const std::string& name)>;
// Whether a library of that name lies in one of the registry's folders.
bool has_plugin(const Registry& registry, const std::string& name);

// What `ftrain run` starts the ranks for, by name: "mpi" or "tcp", or "local" when they are to be
// threads of this process.
std::string choose_to_start(const LaunchSettings& settings, bool mpirun, const HasPlugin& has);

struct RankCommunicators {
  std::string host;    // "mpi", "tcp"
  std::string device;  // "nccl", carried by the other one; empty: the other one does
};

// What a rank under a launcher joins the others by. `device`: the plugin of the job's device.
RankCommunicators choose_for_rank(const LaunchSettings& settings,
                                  const RankEnvironment& environment, const std::string& device,
                                  const HasPlugin& has);

}  // namespace ftrain::launch
