// A run's state between a device and the disk: first values, given weights, what a checkpoint
// holds.
//
// Tensors on disk are logical: a state that is split over ranks is stored in pieces named
// "NAME[first:last]" by rows, whole ones under their name, and any rank count reads both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/checkpoint/files.h"
#include "ftrain/device/device.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Writes every state's first value: a function of (seed, name, logical element).
FTRAIN_API void initialize(StateStore& store, std::uint64_t seed);

// Weights that a training begins with; absent: as initialize() makes them.
struct InitialWeights {
  std::optional<std::filesystem::path> backbone, centers;  // safetensors files
};
// Replaces values by those of the files. DataError names a tensor that is missing, unknown or
// of another shape; `num_batches_tracked` of PyTorch's batch norms is passed over.
FTRAIN_API void load_initial_weights(StateStore& store, const InitialWeights& init);

// Restores every state of the store. DataError when the checkpoint lacks one or holds another
// shape: it is of another network.
FTRAIN_API void restore(StateStore& store, CheckpointReader& checkpoint);

}  // namespace ftrain
