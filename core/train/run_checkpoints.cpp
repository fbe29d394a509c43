#include "core/train/run_checkpoints.h"

#include <utility>
#include <vector>

#include "core/checkpoint/state.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"

namespace ftrain {

RunCheckpoints::RunCheckpoints(const Assembly& assembly, StateStore& store,
                               Communicator* communicator, std::int64_t global_batch)
    : assembly_(assembly),
      store_(store),
      communicator_(communicator),
      global_batch_(global_batch),
      folder_(assembly.folder() / "checkpoints"),
      // A run that saves at its end alone has nothing to go on with meanwhile.
      saver_(folder_, assembly.job.name, store, communicator,
             assembly.checkpoint.asynchronous && assembly.checkpoint.every > 0) {}

// The newest sound one as the first rank sees it: ranks must not choose by themselves while a file
// system shows them different things. -1: none.
std::int64_t RunCheckpoints::agreed_step() {
  std::int64_t step = -1;
  if (first()) {
    std::vector<std::string> refused;
    if (const auto latest = latest_checkpoint(folder_, &refused)) step = latest->step;
    for (const std::string& reason : refused) log::warning(reason);
  }
  if (communicator_) communicator_->broadcast(&step, sizeof step, 0);
  return step;
}

void RunCheckpoints::check_batch(const CheckpointReader& checkpoint) const {
  const auto it = checkpoint.extra().find("global_batch");
  if (it == checkpoint.extra().end() || it->second == std::to_string(global_batch_)) return;
  const std::int64_t ranks = communicator_ ? communicator_->size() : 1;
  std::string way_out;
  const std::int64_t wanted = std::stoll(it->second);
  if (wanted % ranks == 0) {
    way_out = "set dataset.batch = " + std::to_string(wanted / ranks / assembly_.run.accumulate);
    const std::int64_t each = ranks * assembly_.data.batch;
    if (wanted % each == 0) {
      way_out += ", or run.accumulate = " + std::to_string(wanted / each) +
                 " to keep the batch of a rank small";
    }
  } else {
    way_out = "use a number of ranks that divides " + it->second;
  }
  throw ConfigError(checkpoint.path().string() + ": this run takes " + it->second +
                    " samples a step, and the job as it is now takes " +
                    std::to_string(global_batch_) +
                    " (dataset.batch x ranks x run.accumulate); its schedule and its order of the "
                    "data would not go on where they stopped: " +
                    way_out + ", or start anew with --fresh");
}

std::int64_t RunCheckpoints::start(bool fresh) {
  const std::int64_t step = fresh ? -1 : agreed_step();
  if (step >= 0) {
    std::optional<CheckpointEntry> entry;
    for (CheckpointEntry& one : list_checkpoints(folder_)) {
      if (one.step == step) entry = std::move(one);
    }
    if (!entry) {
      throw DataError(folder_.string() + ": the checkpoint of step " + std::to_string(step) +
                      " is not there, but rank 0 sees it; put run.folder on a file system that all "
                      "ranks share");
    }
    CheckpointReader checkpoint(entry->path);
    check_batch(checkpoint);
    restore(store_, checkpoint);
    if (first()) log::info("continuing from " + entry->path.string());
  } else {
    initialize(store_, assembly_.seed());
    load_initial_weights(store_, assembly_.init);
  }
  if (communicator_) communicator_->barrier();
  if (first()) {
    remove_leftovers(folder_);
    if (fresh) {
      for (const CheckpointEntry& old : list_checkpoints(folder_)) {
        std::filesystem::remove_all(old.path);
      }
      std::filesystem::remove(folder_ / "best.json");
    } else if (const auto best = best_checkpoint(folder_)) {
      best_ = best;
      marked_ = best->step;
    }
  }
  if (communicator_) {
    BestCheckpoint shared = best_.value_or(BestCheckpoint{-1, 0});
    communicator_->broadcast(&shared, sizeof shared, 0);
    if (shared.step >= 0) best_ = shared;
  }
  return std::max<std::int64_t>(step, 0);
}

void RunCheckpoints::begin(std::int64_t step, std::int64_t steps) {
  if (last_begun_ == step) return;
  finish();
  saver_.begin(step, {{"seed", std::to_string(assembly_.job.seed)},
                      {"steps", std::to_string(steps)},
                      {"global_batch", std::to_string(global_batch_)}});
  last_begun_ = step;
}

void RunCheckpoints::finish() {
  if (!saver_.pending()) return;
  const std::int64_t step = saver_.step();
  const std::filesystem::path path = saver_.finish();
  if (!first()) return;
  if (best_ && best_->step == step) {
    mark_best_checkpoint(folder_, *best_);
    marked_ = step;
  }
  prune_checkpoints(folder_, assembly_.checkpoint.keep, marked_);
  if (on_saved) on_saved(step, path);
}

}  // namespace ftrain
