// A trained network's weights for commands that only evaluate: which ones the command line means,
// and how they come into a device's states.
//
// Failure: ConfigError for words that contradict each other, DataError where there is nothing
// sound.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/checkpoint/files.h"
#include "core/train/assembly.h"
#include "launch/command_line.h"

namespace ftrain::launch {

// --checkpoint and --weights.
void add_weight_options(CommandLine& line);

class Weights {
 public:
  // Of a run whose checkpoints are in `folder`: what the words ask for, else its best checkpoint
  // that is still there, else its latest. `init`: instead of checkpoints that are not there; may be
  // null.
  Weights(const CommandLine& line, const std::filesystem::path& folder, const InitSettings* init);

  void load(StateStore& store);
  const std::string& source() const { return source_; }
  std::int64_t step() const { return checkpoint_ ? checkpoint_->step() : 0; }

 private:
  std::optional<CheckpointReader> checkpoint_;
  InitSettings init_;  // of files, where there is no checkpoint
  std::string source_;
};

}  // namespace ftrain::launch
