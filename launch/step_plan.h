// A job assembled and compiled down to its memory plan, with nothing of it allocated.
//
// Ownership: a StepPlan owns all of it; its kernels' definitions live in its device. Failure: what
// assembling a job throws.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/train/assembly.h"
#include "ftrain/device/device.h"

namespace ftrain::launch {

// What one process will use, that of rank 0, which has the most classes: tensors as the plans have
// them, the rest as measured. The process holds one rank, or with the communicator `local` all.
struct MemoryPlan {
  std::size_t processes = 1;         // of this kind
  std::size_t resident = 0;          // states and inputs of both programs
  std::size_t states = 0;            // of which states
  std::size_t host = 0;              // states that a device keeps in the host's memory
  std::size_t arena = 0;             // the training step's
  std::size_t evaluation_arena = 0;  // what the verification needs beyond that
  std::size_t ring = 0;              // decoded batches and their threads
  std::size_t checkpoint = 0;        // the copy or the part in hand while one is written
  std::size_t process = 0;           // libraries, kernels' code, threads: as measured now
  std::size_t peak() const {
    return resident + host + arena + evaluation_arena + ring + checkpoint + process;
  }
  // Of all of them, where they share one machine.
  std::size_t machine() const { return processes * peak(); }
};

// A plan that is one of many: other numbers than the job's, and what need not be done anew.
struct PlanVariant {
  std::optional<std::int64_t> batch, classes;
  std::optional<std::size_t> process;  // as another plan of the job measured it
  std::optional<std::int64_t> ranks;
  std::optional<std::string> parallelism;  // with the keys of the job's that it has
};

struct StepPlan {
  Assembly assembly;
  std::vector<std::string> notes;
  std::string data;  // the data set's summary
  std::int64_t classes = 0;
  std::optional<std::int64_t> steps, steps_per_epoch;  // unknown where the data are absent
  Program training;
  std::optional<Program> evaluation;  // absent without verification sets
  MemoryPlan memory;

  StepPlan(const Job& job, Registry& registry, const PlanVariant& variant = {});

 private:
  void open_data(const Job& job);
  void prepare();
  // `threads`: all ranks are in this process.
  void add_up(bool threads, std::optional<std::size_t> process);
};

}  // namespace ftrain::launch
