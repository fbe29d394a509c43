// `ftrain run` outside of any launcher, for a job of several processes: starts the ranks, says what
// became of them, and starts them again while [launch] max_restarts allows.
//
// Threads: the main one. Failure: ConfigError for a [launch] table that makes no sense here; what
// ends the ranks is printed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/train/settings.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"
#include "launch/complaint.h"
#include "launch/ranks/mpirun.h"

namespace ftrain::launch {

// What connects the ranks of this job when it starts them itself: the name of a communicator.
// "local" when they are to be threads of this process.
std::string choose_communicator(const LaunchSettings& settings, const Registry& registry);

// Why a job's ranks ended.
struct Verdict {
  Complaint complaint;
  std::string who;           // the rank that failed, where the complaint does not name it
  bool restartable = false;  // another start may go better
};
Verdict verdict_of(const Ending& ending);

struct RanksToStart {
  const Job& job;
  const LaunchSettings& settings;
  std::string communicator;
  std::vector<std::string> words;  // of the command line, behind `run`
  std::filesystem::path folder;    // the run's
};

// To the end of the job. Its exit code.
int supervise(const RanksToStart& ranks);

}  // namespace ftrain::launch
