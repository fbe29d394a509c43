// Sums per channel that are the same to the bit for every number of threads.
//
// The runs of tiles of each (group, channel block) are cut into a number of parts that depends on
// the shape alone; each part sums in double for itself, and the parts are added in order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plugins/devices/cpu/simd/tiles.h"

namespace ftrain::cpu {

class ChannelSums {
 public:
  ChannelSums() = default;
  // `sums`: how many different sums there are of each channel.
  ChannelSums(const Tiles& tiles, std::int64_t groups, std::int64_t sums)
      : tiles_(tiles), groups_(groups), sums_(sums), runs_(tiles.outer / groups) {
    constexpr std::int64_t enough_items = 64;
    const std::int64_t items = groups * tiles.blocks;
    parts_ = std::clamp<std::int64_t>((enough_items + items - 1) / items, 1, runs_);
  }

  std::size_t scratch_bytes() const {
    return static_cast<std::size_t>(parts_ * sums_ * width()) * sizeof(double);
  }

  // tile(run, block, partial) adds its sums to partial[k * partial_stride() + lane].
  template <class F>
  void gather(double* scratch, int threads, const F& tile) const {
    parallel_for(parts_ * groups_ * tiles_.blocks, threads, [&](std::int64_t item) {
      const std::int64_t block = item % tiles_.blocks, rest = item / tiles_.blocks;
      const std::int64_t group = rest / parts_, part = rest % parts_;
      double* const partial =
          scratch + part * sums_ * width() + group * tiles_.channels() + block * tiles_.block;
      for (std::int64_t k = 0; k < sums_; ++k) {
        std::fill_n(partial + k * width(), tiles_.block, 0.0);
      }
      const std::int64_t first = part * runs_ / parts_, last = (part + 1) * runs_ / parts_;
      for (std::int64_t run = first; run < last; ++run) {
        tile(group * runs_ + run, block, partial);
      }
    });
    for (std::int64_t part = 1; part < parts_; ++part) {
      const double* const more = scratch + part * sums_ * width();
      for (std::int64_t i = 0; i < sums_ * width(); ++i) scratch[i] += more[i];
    }
  }

  // From one of a channel's sums to the next; also where sum k starts in scratch after gather(),
  // as [groups, C].
  std::int64_t partial_stride() const { return width(); }
  std::int64_t width() const { return groups_ * tiles_.channels(); }

 private:
  Tiles tiles_;
  std::int64_t groups_ = 1, sums_ = 1, runs_ = 1, parts_ = 1;
};

}  // namespace ftrain::cpu
