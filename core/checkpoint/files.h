// Checkpoints on disk: a folder of safetensors shards and a manifest, whole or not there at all.
//
//   checkpoints/step-00001000/manifest.json       step, job, tensors -> shard, checksums, extra
//   checkpoints/step-00001000/*.safetensors
//   checkpoints/best.json                          which step verified best, and how well
//   checkpoints/.step-00002000.tmp/                being written, or left by a killed run
//
// A checkpoint is written in a hidden folder beside its place, forced to the disk, then renamed.
// Whoever is killed leaves a hidden folder that nobody reads and remove_leftovers() removes.
// Ownership: views of a reader die with it. Threads: one writer; a reader belongs to one thread.
// Failure: DataError; a writer that fails leaves older checkpoints untouched and nothing new
// behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/checkpoint/safetensors.h"
#include "ftrain/base/dtype.h"
#include "ftrain/base/shape.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// What is no tensor: cursors, scales, names. Values are free text.
using CheckpointExtra = std::map<std::string, std::string>;

class FTRAIN_API CheckpointWriter {
 public:
  // `folder` is made when absent. A leftover of this step is removed.
  CheckpointWriter(const std::filesystem::path& folder, std::int64_t step, std::string job = {});
  // Removes what was written when commit() was not reached.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Writes SHARD.safetensors. Tensor names are unique over all shards.
  void add_shard(const std::string& shard, std::span<const TensorView> tensors);
  // Takes in a shard that someone else (another rank) wrote to temporary()/SHARD.safetensors with
  // write_safetensors; `seal` is what that call returned.
  void adopt_shard(const std::string& shard, const FileSeal& seal);
  // Where the checkpoint is being written.
  const std::filesystem::path& temporary() const;

  // Writes the manifest and renames. A checkpoint of the same step is replaced, atomically where
  // the file system can. Returns the checkpoint's folder.
  std::filesystem::path commit(const CheckpointExtra& extra = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class FTRAIN_API CheckpointReader {
 public:
  // Reads the manifest and checks that every shard is there in its full size.
  explicit CheckpointReader(const std::filesystem::path& checkpoint);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;

  const std::filesystem::path& path() const;
  std::int64_t step() const;
  const std::string& job() const;
  const CheckpointExtra& extra() const;
  // Sorted.
  std::vector<std::string> names() const;
  bool has(std::string_view name) const;

  // The tensor in the mapped shard. The shard's checksum is verified at its first use: DataError
  // names a damaged one. DataError with near names when there is no such tensor.
  const TensorView& view(std::string_view name);
  // Copies it to `out`; DataError unless type and shape are these.
  void read(std::string_view name, DType dtype, const Shape& shape, void* out);
  // That part of the tensor is not wanted any more for now: its memory is given back.
  void forget(std::string_view name, const void* first, std::size_t bytes);
  // Verifies every shard.
  void verify();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct CheckpointEntry {
  std::int64_t step = 0;
  std::filesystem::path path;
};

// The folders named like checkpoints, oldest first; empty when `folder` is absent.
FTRAIN_API std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& folder);

// The newest one whose manifest is sound and whose shards are there. Newer ones that are not are
// told in `refused`, one line each.
FTRAIN_API std::optional<CheckpointEntry> latest_checkpoint(
    const std::filesystem::path& folder, std::vector<std::string>* refused = nullptr);

// Removes all but the newest `keep` (at least 1) sound checkpoints and that of `best_step`.
// Damaged ones stay for the user to look at and do not count. Returns what was removed.
FTRAIN_API std::vector<std::filesystem::path> prune_checkpoints(
    const std::filesystem::path& folder, std::int64_t keep,
    std::optional<std::int64_t> best_step = std::nullopt);

// Removes what killed runs left half-written. Call at start, when no other run uses the folder.
FTRAIN_API std::vector<std::filesystem::path> remove_leftovers(const std::filesystem::path& folder);

struct BestCheckpoint {
  std::int64_t step = 0;
  double accuracy = 0;
};
// best.json of the folder. Empty when there is none; DataError when it is damaged.
FTRAIN_API std::optional<BestCheckpoint> best_checkpoint(const std::filesystem::path& folder);
FTRAIN_API void mark_best_checkpoint(const std::filesystem::path& folder,
                                     const BestCheckpoint& best);

}  // namespace ftrain
