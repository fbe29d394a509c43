// Saves a run's checkpoints: all ranks write their part, beside the training if asked for.
//
// begin() takes a copy of the rank's part of the state and hands it to a thread that writes it; the
// training goes on. Once every rank's part is on the disk, finish() puts the checkpoint in its
// place. Without `asynchronous` nothing is copied and begin() itself writes. States that are split
// over ranks are written by their owners; of those that all ranks hold alike each rank writes a
// share, and the running statistics are the first rank's. Threads: one of its own while it writes;
// the calls come from the rank's. Failure: DataError naming the rank and file; older checkpoints
// are untouched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "core/checkpoint/files.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class FTRAIN_API CheckpointSaver {
 public:
  // `communicator` may be null: one rank. All that is given must outlive the saver.
  CheckpointSaver(std::filesystem::path folder, std::string job, const StateStore& store,
                  Communicator* communicator, bool asynchronous);
  // What is not finished is removed.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // Collective. Begins the checkpoint of `step`; there must be none pending.
  void begin(std::int64_t step, const CheckpointExtra& extra);
  // Between begin() and finish(); the step of that checkpoint.
  bool pending() const;
  std::int64_t step() const;
  // Whether this rank's part is written, or failed: finish() would not wait for it.
  bool ready() const;
  // Collective. Waits for all parts and returns the checkpoint's folder, which now is in its place.
  std::filesystem::path finish();
  // Bytes of the copy that begin() makes of `store`; 0 when not asynchronous.
  static std::size_t copy_bytes(const StateStore& store, int rank, int ranks, bool asynchronous);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ftrain
