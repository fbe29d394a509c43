#include "plugins/devices/cpu/simd/slabs.h"

#include <unistd.h>

namespace ftrain::cpu {
namespace {

// Of the last level of cache, what slabs may take.
std::int64_t cache_bytes() {
  static const std::int64_t bytes = [] {
    constexpr std::int64_t unknown = std::int64_t{8} << 20;
    std::int64_t found = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    found = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
#endif
    return found > 0 ? found / 2 : unknown;
  }();
  return bytes;
}

}  // namespace

Slabs::Slabs(const Tiles& tiles, std::int64_t groups, std::int64_t sums, std::int64_t activations,
             std::int64_t element, int threads)
    : tiles_(tiles), groups_(groups), sums_(sums), runs_(tiles.outer / groups) {
  constexpr std::int64_t most_parts = 16;
  parts_ = std::min(most_parts, runs_);
  const std::int64_t items = groups * tiles.blocks;
  const bool even = items % threads == 0 || items >= 4 * threads;
  together_ = threads > 1 && parts_ >= threads && !even;
  const std::int64_t bytes = runs_ * tiles.rows * tiles.block * element * activations;
  const std::int64_t fit = cache_bytes() / bytes / (together_ ? 1 : threads);
  const std::int64_t blocks = std::clamp<std::int64_t>(fit, 1, tiles.blocks);
  slabs_ = (tiles.blocks + blocks - 1) / blocks;
  if (!together_)
    slabs_ = std::min<std::int64_t>(tiles.blocks, (slabs_ + threads - 1) / threads * threads);
}

}  // namespace ftrain::cpu
