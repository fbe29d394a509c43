// Short trainings of one job in several parallelisms, and how far they are from each other.
//
// Ranks are threads of this process. Failure: what the job's plugins throw.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/train/trainer.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"

namespace ftrain::launch {

struct ParityCase {
  std::string parallelism;
  bool samples = false;  // the strategy can train with a part of the classes
  bool sampled = false;  // with the job's sample, not with every class
  int ranks = 1;
};

struct ParitySettings {
  std::int64_t steps = 0, global_batch = 0;
  double rate = 0;
  std::filesystem::path folder;  // for the runs: nothing of it is needed afterwards
  const std::atomic<int>* interrupted = nullptr;
};

// A run that is over, with the ranks' states.
struct ParityRun {
  std::vector<std::unique_ptr<Job>> jobs;
  std::vector<std::unique_ptr<Communicator>> communicators;
  std::vector<std::unique_ptr<Trainer>> trainers;
  std::vector<double> losses;
};

// `job`: as the trainer takes it, Job::resolved(), so that keys of another parallelism than the
// job's own are passed over whoever set them.
ParityRun train(const std::string& job, Registry& registry, const ParitySettings& settings,
                const ParityCase& one);

// What others are compared with: the losses, and the logical weights by name.
struct ParityReference {
  std::vector<double> losses;
  std::map<std::string, std::vector<float>> weights;
};
ParityReference reference_of(const ParityRun& run);

// Of the first step's loss and, the largest, of all losses: relative. Of the tensor that differs
// most: the root mean square of the difference over that of the tensor, which counts as 0.01 at
// least. Not a number where one side is none.
struct ParityDifference {
  double first_loss = 0, loss = 0, backbone = 0, centers = 0;
  std::string tensor;  // the backbone's that differs most
};
ParityDifference compare(const ParityRun& run, const ParityReference& reference);

}  // namespace ftrain::launch
