// Which sample stands where in the order of a training run.
//
// The order depends on (seed, step, global position) alone: not on threads, ranks or the device.
// Each epoch is one permutation of the data set, computed at random access in constant memory. A
// step takes the next `global_batch` positions; those of an epoch's end that fill no batch are left
// out. When one batch is larger than the data set, every epoch is one step that repeats the
// permutation from its start until the batch is full. Threads: immutable.
#pragma once

#include <cstdint>

#include "ftrain/plugin/api.h"

namespace ftrain {

class FTRAIN_API Sampler {
 public:
  // Without `shuffle` the order of every epoch is the data set's own. DataError when `size` is not
  // positive.
  Sampler(std::int64_t size, std::int64_t global_batch, bool shuffle, std::uint64_t seed);

  std::int64_t size() const { return size_; }
  std::int64_t global_batch() const { return global_batch_; }
  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // Steps and epochs count from 0.
  std::int64_t epoch_of(std::int64_t step) const { return step / steps_per_epoch_; }

  // The data set's index at `position` of `epoch`; positions past the end start over.
  std::int64_t index(std::int64_t epoch, std::int64_t position) const;
  // The position within its epoch of sample `global` of `step`; 0 <= global < global_batch().
  std::int64_t position_of(std::int64_t step, std::int64_t global) const {
    return step % steps_per_epoch_ * global_batch_ + global;
  }
  // Both together.
  std::int64_t index_at(std::int64_t step, std::int64_t global) const {
    return index(epoch_of(step), position_of(step, global));
  }

 private:
  std::int64_t size_, global_batch_, steps_per_epoch_;
  bool shuffle_;
  std::uint64_t key_;
  std::uint64_t left_, right_;  // the halves of the Feistel network: left_ * right_ >= size_
};

}  // namespace ftrain
