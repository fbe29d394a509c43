// A job assembled and compiled down to its memory plan, with nothing of it allocated.
//
// Ownership: a StepPlan owns all of it; its kernels' definitions live in its device. Failure: what
// assembling a job throws.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/runtime/device.h"
#include "core/train/assembly.h"

namespace ftrain::launch {

// What one process will use, as far as the plans say.
struct MemoryPlan {
  std::size_t resident = 0;          // states and inputs of both programs, all ranks
  std::size_t states = 0;            // of which states
  std::size_t arena = 0;             // the training step's, all ranks
  std::size_t evaluation_arena = 0;  // the first rank's
  std::size_t ring = 0;              // decoded batches, all ranks
  std::size_t checkpoint = 0;        // the tensor in hand while one is written
  std::size_t process = 0;           // the program and its libraries, as measured now
  std::size_t peak() const {
    return resident + arena + evaluation_arena + ring + checkpoint + process;
  }
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

  StepPlan(const Job& job, Registry& registry);

 private:
  void open_data(const Job& job);
  void prepare();
  void add_up();
};

}  // namespace ftrain::launch
