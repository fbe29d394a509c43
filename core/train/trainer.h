// Runs a job: assembles its step, compiles it, replays it, and keeps its run folder.
//
// One Trainer a rank; ranks of one process are threads. Failure: every type of ftrain/base/error.h.
// A run that fails leaves its last checkpoint and a summary whose state is "failed".
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/train/assembly.h"
#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/observer.h"
#include "ftrain/plugin/api.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {

struct TrainerOptions {
  Communicator* communicator = nullptr;  // nullptr: one rank
  // Set from a signal handler to the signal's number: the steps in hand are finished, a checkpoint
  // written. On any one rank it stops them all; the others hear of it with the next step.
  const std::atomic<int>* interrupted = nullptr;
  bool fresh = false;       // do not continue from the run folder's checkpoint
  bool checkpoints = true;  // false: none is written
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
};

class FTRAIN_API Trainer {
 public:
  Trainer(const Job& job, Registry& registry, TrainerOptions options);
  ~Trainer();

  // To the end, to stop_at, or to an interruption. summary().state says which.
  void run();
  const RunSummary& summary() const;
  // The signal that ended the run, on whichever rank it came; 0: none did.
  int interrupted_by() const;

  // For tests: told of each step, in order, with the losses as the first rank sees them.
  std::function<void(const StepReport&)> after_step;
  // The states of this rank, e.g. for comparing runs.
  const StateStore& states() const;

 private:
  class Run;
  std::unique_ptr<Run> run_;
};

}  // namespace ftrain
