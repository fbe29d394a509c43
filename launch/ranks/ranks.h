// A job's ranks in this process: one of several that a launcher started, or all, as threads.
//
// Threads: the main one. Failure: run_on_threads() throws the error of the first rank that failed
// by itself; run_as_rank() tells it in the way that its launcher has, and then ends the process,
// because ranks that are connected to one which failed cannot be left in order.
#pragma once

#include <functional>

#include "core/train/assembly.h"
#include "core/train/trainer.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"
#include "launch/ranks/rank_environment.h"

namespace ftrain::launch {

// What a run ends with: done, or the code of the signal that ended it.
int code_of(const Trainer& trainer);

int run_on_threads(const Job& job, const Assembly& assembly, Registry& registry,
                   const TrainerOptions& options);

// What a rank does; its own pieces are made in this order on every rank.
struct RankWork {
  std::function<Job()> load;
  // Refuses what the job's options do not allow; may be where ranks differ.
  std::function<void(const Assembly&)> check;
  TrainerOptions options;
};

// `place.size` may be 1.
int run_as_rank(const RankEnvironment& environment, const RankWork& work);

}  // namespace ftrain::launch
