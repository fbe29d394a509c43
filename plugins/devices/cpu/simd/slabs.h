// Several passes over an activation, one slab at a time: a slab is some neighbouring channel blocks
// of one group's samples, few enough for a later pass to find in the caches what an earlier one
// read, and as many as that allows, since memory is read best in long runs.
//
// Each thread works on slabs of its own and waits for nobody. Only where there are too few channel
// blocks for the threads do all work on one slab, each on its share of the samples. Passes go to
// and fro, so that a slab which is too large for the caches is at least found there in part. Sums
// are cut into parts by shape alone and added in order: results are the same to the bit for every
// number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "plugins/devices/cpu/simd/tiles.h"

namespace ftrain::cpu {

enum class Direction { to, fro };

class Slabs {
 public:
  // `sums`: how many sums a slab takes altogether; `activations`: how many of its like the passes
  // touch, of `element` bytes each.
  Slabs(const Tiles& tiles, std::int64_t groups, std::int64_t sums, std::int64_t activations,
        std::int64_t element, int threads);

  std::size_t scratch_bytes() const {
    return static_cast<std::size_t>(groups_ * tiles_.channels() * parts_ * sums_) * sizeof(double);
  }

  // One channel block of a slab: its first channel, and that one's place in a [groups, C].
  struct Block {
    std::int64_t channel = 0, grouped = 0;
  };

  // What one thread sees of the slab that it works on.
  class Slab {
   public:
    // tile(block, offset) for each of this thread's tiles.
    template <class Tile>
    void pass(Direction direction, const Tile& tile) const {
      each_part(direction, [&](std::int64_t part) {
        each_tile(part, direction,
                  [&](std::int64_t block, std::int64_t offset) { tile(at(block), offset); });
      });
    }

    // tile(block, offset, sums), where sums[k * lanes] is to be added to: it is sum first + k.
    template <class Tile>
    void sum(Direction direction, std::int64_t first, std::int64_t count, const Tile& tile) const {
      each_part(direction, [&](std::int64_t part) {
        for (std::int64_t block = first_block_; block < last_block_; ++block) {
          std::fill_n(partial(block, part, first), count * all_.tiles_.block, 0.0);
        }
        each_tile(part, direction, [&](std::int64_t block, std::int64_t offset) {
          tile(at(block), offset, partial(block, part, first));
        });
      });
      wait();
    }

    // settle(block) for each of this thread's blocks, which may ask for totals; then all go on.
    template <class Settle>
    void settle(const Settle& settle) const {
      for (std::int64_t block = first_block_ + member_; block < last_block_; block += members_) {
        settle(at(block));
      }
      wait();
    }

    // Sum k of a block's lanes, after sum().
    void total(const Block& block, std::int64_t k, double* lanes) const {
      const std::int64_t index = block.channel / all_.tiles_.block;
      std::copy_n(partial(index, 0, k), all_.tiles_.block, lanes);
      for (std::int64_t part = 1; part < all_.parts_; ++part) {
        const double* const more = partial(index, part, k);
        for (std::int64_t i = 0; i < all_.tiles_.block; ++i) lanes[i] += more[i];
      }
    }

   private:
    friend class Slabs;
    Slab(const Slabs& all, std::int64_t index, int member, int members, double* scratch)
        : all_(all),
          group_(index / all.slabs_),
          first_block_(index % all.slabs_ * all.tiles_.blocks / all.slabs_),
          last_block_((index % all.slabs_ + 1) * all.tiles_.blocks / all.slabs_),
          member_(member),
          members_(members),
          scratch_(scratch + group_ * all.tiles_.channels() * all.parts_ * all.sums_) {}

    Block at(std::int64_t block) const {
      const std::int64_t channel = block * all_.tiles_.block;
      return {channel, group_ * all_.tiles_.channels() + channel};
    }

    double* partial(std::int64_t block, std::int64_t part, std::int64_t sum) const {
      return scratch_ + ((block * all_.parts_ + part) * all_.sums_ + sum) * all_.tiles_.block;
    }

    void wait() const {
      if (members_ == 1) return;
#pragma omp barrier
    }

    template <class F>
    static void each(std::int64_t first, std::int64_t last, Direction direction, const F& f) {
      if (direction == Direction::to) {
        for (std::int64_t i = first; i < last; ++i) f(i);
      } else {
        for (std::int64_t i = last; i-- > first;) f(i);
      }
    }
    template <class F>
    void each_part(Direction direction, const F& f) const {
      const std::int64_t parts = all_.parts_;
      each(member_ * parts / members_, (member_ + 1) * parts / members_, direction, f);
    }
    // In the order of memory.
    template <class F>
    void each_tile(std::int64_t part, Direction direction, const F& f) const {
      const std::int64_t runs = all_.runs_, first = group_ * runs;
      each(part * runs / all_.parts_, (part + 1) * runs / all_.parts_, direction,
           [&](std::int64_t run) {
             each(first_block_, last_block_, direction,
                  [&](std::int64_t block) { f(block, all_.tiles_.offset(first + run, block)); });
           });
    }

    const Slabs& all_;
    std::int64_t group_, first_block_, last_block_;
    int member_, members_;
    double* scratch_;
  };

  // work(slab), on every thread that has part in the slab; all make the same calls of sum() and
  // settle().
  template <class Work>
  void for_each(double* scratch, int threads, const Work& work) const {
    const std::int64_t slabs = groups_ * slabs_;
    const bool together = together_;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
      const int thread = omp_get_thread_num(), team = omp_get_num_threads();
      if (together) {
        for (std::int64_t i = 0; i < slabs; ++i) work(Slab(*this, i, thread, team, scratch));
      } else {
        const std::int64_t last = (thread + 1) * slabs / team;
        for (std::int64_t i = thread * slabs / team; i < last; ++i) {
          work(Slab(*this, i, 0, 1, scratch));
        }
      }
    }
  }

 private:
  Tiles tiles_;
  std::int64_t groups_, sums_, runs_;
  std::int64_t parts_;  // of the runs, for sums and for threads
  std::int64_t slabs_;  // of a group
  bool together_;
};

}  // namespace ftrain::cpu
