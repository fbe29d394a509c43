// Is this process one rank of several that a launcher started? The environment says.
//
// Understood are Open MPI (mpirun), Slurm (srun), PMIx with a world size, and the variables that
// torchrun and its like set: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR,
// MASTER_PORT. Threads: any, while nobody writes the environment. Failure: ConfigError that names
// variables which are missing, bad, or contradict each other.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/device/communicator.h"

namespace ftrain::launch {

// A variable's value; nothing when it is unset or empty.
using Variables = std::function<std::optional<std::string>(const std::string&)>;
Variables process_environment();

struct RankEnvironment {
  RankPlace place;
  std::string launcher;      // "mpirun", "srun", ...: as messages give it
  std::string communicator;  // what [launch] communicator = "auto" means under it
  // `ftrain run` itself is behind the launcher: it forwards signals and tells failures.
  bool supervised = false;
};

// Set for ranks whose launcher was started by `ftrain run`.
constexpr const char* supervised_variable = "FTRAIN_SUPERVISED";

// Nothing when no launcher is above this process.
std::optional<RankEnvironment> rank_environment(const Variables& variables);

// "node[03-05,9],login" -> node03, node04, node05, node9, login.
std::vector<std::string> expand_node_list(const std::string& list);

// This machine's name.
std::string host_name();

}  // namespace ftrain::launch
