// The checkpoints of one run: where it goes on from, which one is being written, which ones stay.
//
// Threads: the rank's. Failure: ConfigError when the run folder's checkpoint is of another global
// batch, DataError of the files. Every call but pending() and ready() is collective.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "core/checkpoint/saver.h"
#include "core/train/assembly.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"

namespace ftrain {

class RunCheckpoints {
 public:
  // `communicator` may be null: one rank. All that is given must outlive this.
  RunCheckpoints(const Assembly& assembly, StateStore& store, Communicator* communicator,
                 std::int64_t global_batch);

  // Fills the store from the run folder's newest checkpoint, from [init], or from the seed; `fresh`
  // removes what is there. Returns the number of steps that are done.
  std::int64_t start(bool fresh);
  // That of earlier parts of the run, or what was found since; the same on every rank.
  const std::optional<BestCheckpoint>& best() const { return best_; }
  // The step of the last checkpoint that was begun in this process; -1: none.
  std::int64_t last_begun() const { return last_begun_; }

  // A verification was the best so far: the checkpoint of its step is to stay.
  void found_best(const BestCheckpoint& best) { best_ = best; }
  // Begins that of `step` of `steps`, unless it was saved before; one that is pending is finished
  // first.
  void begin(std::int64_t step, std::int64_t steps);
  bool pending() const { return saver_.pending(); }
  // Whether this rank would not have to wait in finish().
  bool ready() const { return !saver_.pending() || saver_.ready(); }
  // Waits for the pending one, if there is one, and removes those that are too many.
  void finish();

  // Told on the first rank when one is whole.
  std::function<void(std::int64_t step, const std::filesystem::path& path)> on_saved;

 private:
  bool first() const { return communicator_ == nullptr || communicator_->rank() == 0; }
  std::int64_t agreed_step();
  void check_batch(const CheckpointReader& checkpoint) const;

  const Assembly& assembly_;
  StateStore& store_;
  Communicator* communicator_;
  std::int64_t global_batch_;
  std::filesystem::path folder_;
  CheckpointSaver saver_;
  std::int64_t last_begun_ = -1;
  std::optional<BestCheckpoint> best_;
  std::optional<std::int64_t> marked_;  // the best one that is on the disk
};

}  // namespace ftrain
