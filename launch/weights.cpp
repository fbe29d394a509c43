#include "launch/weights.h"

#include "core/checkpoint/state.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

// The checkpoint that --checkpoint means: a folder, "latest", "best", or by default the best one
// that is still there, else the latest. Nothing when there is none and none was asked for.
std::optional<CheckpointReader> find_checkpoint(const std::optional<std::string>& asked,
                                                const fs::path& folder) {
  const bool latest_only = asked == "latest", best_only = asked == "best";
  if (asked && !latest_only && !best_only) return CheckpointReader(*asked);
  if (!latest_only) {
    if (const auto best = best_checkpoint(folder)) {
      for (const CheckpointEntry& entry : list_checkpoints(folder)) {
        if (entry.step == best->step) return CheckpointReader(entry.path);
      }
    }
    if (best_only) {
      throw DataError(folder.string() + ": no checkpoint is marked as the best; use latest");
    }
  }
  std::vector<std::string> refused;
  const auto latest = latest_checkpoint(folder, &refused);
  for (const std::string& reason : refused) log::warning(reason);
  if (!latest) return std::nullopt;
  return CheckpointReader(latest->path);
}

}  // namespace

void add_weight_options(CommandLine& line) {
  line.options()("checkpoint", po::value<std::string>()->value_name("WHICH"),
                 "a checkpoint's folder, latest, or best (default: the run folder's best, else its "
                 "latest)")("weights", po::value<std::string>()->value_name("FILE"),
                            "a safetensors file with arcface_torch's parameter names, instead of a "
                            "checkpoint");
}

Weights::Weights(const CommandLine& line, const fs::path& folder, const InitSettings* init) {
  if (line.has("checkpoint") && line.has("weights")) {
    throw ConfigError("give --checkpoint or --weights, not both");
  }
  if (line.has("weights")) {
    init_.backbone = source_ = line.text("weights");
    return;
  }
  const bool asked = line.has("checkpoint");
  checkpoint_ =
      find_checkpoint(asked ? std::optional(line.text("checkpoint")) : std::nullopt, folder);
  if (checkpoint_) {
    source_ = checkpoint_->path().string();
  } else if (!asked && init != nullptr && init->backbone) {
    init_.backbone = init->backbone;
    source_ = init->backbone->string();
  } else {
    throw DataError(folder.string() +
                    " holds no sound checkpoint; train the job first, or name a checkpoint with "
                    "--checkpoint or a weights file with --weights");
  }
}

void Weights::load(StateStore& store) {
  if (checkpoint_) {
    restore(store, *checkpoint_);
  } else {
    load_initial_weights(store, init_);
  }
}

}  // namespace ftrain::launch
