// The walk in tiles that stay in a core's cache.
//
// Each thread owns a contiguous run of classes and walks it tile by tile: a tile is multiplied with
// all features and its cosines are worked on in place; the next tile's class centers are fetched
// meanwhile. Sampled rows are read and written where they stand; rows in bf16 are widened tile by
// tile. Partial sums of the threads are
// added in thread order, so a run repeats to the bit on as many threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ftrain/device/kernel.h"
#include "plugins/devices/cpu/class_center/operands.h"
#include "plugins/devices/cpu/class_center/tile.h"

namespace ftrain::cpu {

// What both walks share: the tile's size, the threads' shares, their buffers, margins on a tile.
class TiledWalk : public Kernel {
 public:
  std::size_t scratch_bytes() const override { return scratch_bytes_; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override;

 protected:
  TiledWalk(const Walk& walk, const KernelEnvironment& environment, bool second);

  // `count` positions from `begin`, and where their class centers stand. Lists are padded to whole
  // row blocks by repeating the last row. `next`: as many rows of the tile behind, null at the end.
  struct Tile {
    std::int64_t begin = 0, count = 0;
    const float* const* rows = nullptr;
    const float* const* next = nullptr;
  };
  // A thread's own. `by_sample` and `slopes` are for margins that change other classes; for the
  // rest `by_sample` has room for an element a sample.
  struct Buffers {
    float *cosines, *inverse, *along, *by_sample, *slopes;
    float *largest, *sum;         // first walk
    double* running;              // first walk: (largest, sum) of each sample so far
    float *gradient, *dfeatures;  // second walk
    const float** rows;
    float* widened;  // the tile's rows, where they are stored in bf16
  };

  template <class T>
  T* in(std::size_t i) const {
    return static_cast<T*>(inputs_[i]);
  }
  float* out(std::size_t i) const { return static_cast<float*>(outputs_[i]); }

  // Targets, row information and features as the tiles want them. The positions in use.
  std::int64_t begin_walk(const std::int64_t* labels, const std::int32_t* rows, const float* target,
                          const float* norms, const float* terms, const float* features);

  // Calls f(tile) for the tiles of a thread's run.
  template <class F>
  void each_tile(int thread, const void* stored, const std::int32_t* rows, std::int64_t used,
                 const F& f) const {
    const std::int64_t tiles = (used + tile_ - 1) / tile_;
    const std::int64_t last = std::min(tiles * (thread + 1) / threads_ * tile_, used);
    const Buffers& own = buffers(thread);
    if (walk_.bf16) {
      Tile tile{tiles * thread / threads_ * tile_, 0, own.rows};
      for (; tile.begin < last; tile.begin += tile.count) {
        tile.count = widen_rows(stored, rows, tile.begin, last, own);
        f(tile);
      }
      return;
    }
    const auto* const weight = static_cast<const float*>(stored);
    const float** current = own.rows;
    const float** next = current + tile_;
    Tile tile{tiles * thread / threads_ * tile_};
    tile.count = list_rows(weight, rows, tile.begin, last, current);
    while (tile.count > 0) {
      const std::int64_t behind = list_rows(weight, rows, tile.begin + tile.count, last, next);
      tile.rows = current;
      tile.next = behind > 0 ? next : nullptr;
      f(tile);
      tile.begin += tile.count;
      tile.count = behind;
      std::swap(current, next);
    }
  }

  const Buffers& buffers(int thread) const {
    return threads_buffers_[static_cast<std::size_t>(thread)];
  }
  class_center::Scaling scaling() const;
  // Calls f(sample, row of the tile) for the samples whose own class is in the tile.
  template <class F>
  void each_own(const Tile& tile, const F& f) const {
    for (std::size_t b = 0; b < own_.size(); ++b) {
      const std::int64_t i = own_[b] - tile.begin;
      if (i >= 0 && i < tile.count) f(b, i);
    }
  }
  // The margin's target function of a sample.
  Dual<float> target(std::size_t sample) const {
    return walk_.margin->f32.target(walk_.margin->functor, row_info_[sample]);
  }
  // Calls the margin's function for other classes on a copy of the cosines in own.by_sample, sample
  // by sample at a stride of tile_. `slopes`: wanted in own.slopes.
  void others(const Tile& tile, const Buffers& own, bool slopes) const;

  Walk walk_;
  int threads_;
  bool second_, plain_;
  class_center::TileFunctions functions_;
  class_center::Sizes sizes_;
  std::int64_t tile_;    // positions, whole row blocks
  std::int64_t stride_;  // of a row's gradient: its width in whole vectors
  std::vector<void*> inputs_, outputs_;
  std::vector<std::int64_t> own_;  // the position of each sample's own class, or -1
  std::vector<MarginRow<float>> row_info_;
  float *by_column_ = nullptr, *by_row_ = nullptr;  // packed features

 private:
  // Lists the rows of a tile that begins at `begin`; how many there are before `last`.
  std::int64_t list_rows(const float* weight, const std::int32_t* rows, std::int64_t begin,
                         std::int64_t last, const float** list) const;
  // The same for rows in bf16, which it widens.
  std::int64_t widen_rows(const void* weight, const std::int32_t* rows, std::int64_t begin,
                          std::int64_t last, const Buffers& own) const;
  // Places the buffers from `base` on (null: only counts); the bytes that they take.
  std::size_t place(std::byte* base);

  std::size_t scratch_bytes_;
  std::vector<Buffers> threads_buffers_;
};

std::unique_ptr<Kernel> make_sampling(const Node& node, const KernelEnvironment& environment);
std::unique_ptr<Kernel> make_tiled_forward(const Node& node, const KernelEnvironment& environment);
// With `update` the rows are updated in place, else their gradient is stored.
std::unique_ptr<Kernel> make_tiled_backward(const Node& node, const KernelEnvironment& environment,
                                            bool update);

}  // namespace ftrain::cpu
