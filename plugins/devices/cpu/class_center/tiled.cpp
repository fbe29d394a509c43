#include "plugins/devices/cpu/class_center/tiled.h"

#include <unistd.h>

#include <limits>

#include "plugins/devices/cpu/class_center/stored_rows.h"

namespace ftrain::cpu {
namespace {

using class_center::row_block;

std::int64_t whole(std::int64_t count, std::int64_t of) {
  return (count + of - 1) / of * of;
}

// Bytes of a core's second cache.
std::int64_t second_cache() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return std::int64_t{1} << 20;
}

// Rows of a tile: two tiles of class centers (this one and the next), their cosines and the
// features in two forms fill three quarters of the cache. Below 96 rows the sums of the features'
// gradient would be loaded and stored too often.
std::int64_t rows_of_tile(std::int64_t width, std::int64_t batch) {
  const std::int64_t fixed = 2 * std::min<std::int64_t>(batch, 64) * width * 4;
  const std::int64_t each = 2 * width * 4 + batch * 4;
  const std::int64_t rows = (second_cache() * 3 / 4 - fixed) / each;
  return std::clamp<std::int64_t>(rows, 96, 240) / row_block * row_block;
}

}  // namespace

TiledWalk::TiledWalk(const Walk& walk, const KernelEnvironment& environment, bool second)
    : walk_(walk),
      threads_(environment.threads),
      second_(second),
      plain_(walk.margin->functions<float>().others == nullptr),
      functions_(class_center::tile_functions(environment.isa)),
      sizes_{walk.batch, walk.width, whole(walk.batch, functions_.lanes)},
      tile_(rows_of_tile(walk.width, sizes_.padded)),
      stride_(whole(walk.width, functions_.lanes)),
      threads_buffers_(static_cast<std::size_t>(threads_)) {
  scratch_bytes_ = place(nullptr);
}

void TiledWalk::bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) {
  inputs_.assign(inputs.begin(), inputs.end());
  outputs_.assign(outputs.begin(), outputs.end());
  place(static_cast<std::byte*>(scratch));
}

std::size_t TiledWalk::place(std::byte* base) {
  std::size_t used = 0;
  const auto take = [&]<class T>(T*& pointer, std::int64_t count) {
    pointer = base != nullptr && count > 0 ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
  };
  const std::int64_t padded = sizes_.padded;
  const std::int64_t others = walk_.batch * (plain_ ? 1 : tile_);
  take(by_column_, padded * walk_.width);
  take(by_row_, second_ ? walk_.batch * stride_ : 0);
  for (Buffers& own : threads_buffers_) {
    take(own.cosines, tile_ * padded);
    take(own.inverse, tile_);
    take(own.along, second_ ? tile_ : 0);
    take(own.by_sample, others);
    take(own.slopes, second_ && !plain_ ? others : 0);
    take(own.largest, second_ ? 0 : padded);
    take(own.sum, padded);  // the second walk keeps the denominators' logarithms here
    take(own.running, second_ ? 0 : 2 * walk_.batch);
    take(own.gradient, second_ ? tile_ * stride_ : 0);
    take(own.dfeatures, second_ ? walk_.width * padded : 0);
    take(own.rows, 2 * tile_);
    take(own.widened, walk_.bf16 ? tile_ * walk_.width : 0);
  }
  return used;
}

std::int64_t TiledWalk::begin_walk(const std::int64_t* labels, const std::int32_t* rows,
                                   const float* target, const float* norms, const float* terms,
                                   const float* features) {
  const std::int64_t used = walk_.used(rows);
  walk_.find_targets(labels, rows, used, own_);
  walk_.make_rows(target, norms, terms, row_info_);
  functions_.pack(sizes_, features, by_column_, by_row_);
  return used;
}

std::int64_t TiledWalk::list_rows(const float* weight, const std::int32_t* rows, std::int64_t begin,
                                  std::int64_t last, const float** list) const {
  const std::int64_t count = std::min(tile_, last - begin);
  if (count <= 0) return 0;
  for (std::int64_t i = 0; i < count; ++i) {
    list[i] = weight + (rows ? rows[begin + i] : begin + i) * walk_.width;
  }
  std::fill(list + count, list + tile_, list[count - 1]);
  return count;
}

std::int64_t TiledWalk::widen_rows(const void* weight, const std::int32_t* rows, std::int64_t begin,
                                   std::int64_t last, const Buffers& own) const {
  const std::int64_t count = std::min(tile_, last - begin);
  for (std::int64_t i = 0; i < count; ++i) {
    own.rows[i] = stored_row(weight, true, rows ? rows[begin + i] : begin + i, walk_.width,
                             own.widened + i * walk_.width);
  }
  std::fill(own.rows + count, own.rows + tile_, own.rows[count - 1]);
  return count;
}

class_center::Scaling TiledWalk::scaling() const {
  const float scale = static_cast<float>(walk_.margin->scale);
  return {scale, walk_.margin->normalized ? scale : std::numeric_limits<float>::infinity()};
}

void TiledWalk::others(const Tile& tile, const Buffers& own, bool slopes) const {
  for (std::int64_t i = 0; i < tile.count; ++i) {
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      own.by_sample[b * tile_ + i] = own.cosines[i * sizes_.padded + b];
    }
  }
  const Margin& margin = *walk_.margin;
  margin.f32.others(margin.functor, {walk_.batch, tile.count, tile_, own.by_sample,
                                     slopes ? own.slopes : nullptr, row_info_.data()});
}

}  // namespace ftrain::cpu
