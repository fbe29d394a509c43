#include "tests/cuda/standin/shared_watch.h"

namespace standin {

void SharedWatch::begin_block(std::size_t bytes, std::size_t warps) {
  bytes_ = bytes;
  warp_periods_.assign(warps, 0);
  ++period_;
  ++block_;
}

bool SharedWatch::outside(std::size_t offset, std::size_t bytes) const {
  return offset + bytes > bytes_;
}

std::string SharedWatch::beyond(std::size_t offset, std::size_t bytes) const {
  return std::to_string(bytes) + " bytes at " + std::to_string(offset) +
         " of shared memory, of which the launch asked for " + std::to_string(bytes_);
}

std::string SharedWatch::access(std::size_t offset, std::size_t bytes, unsigned thread,
                                bool writes) {
  if (outside(offset, bytes)) return (writes ? "writes " : "reads ") + beyond(offset, bytes);
  const int self = static_cast<int>(thread), warp = self / 32;
  const std::uint64_t warp_period = warp_periods_[static_cast<std::size_t>(warp)];
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    Cell& cell = cells_[i];
    if (!writes && cell.block != block_) {
      return "reads byte " + std::to_string(i) + " of shared memory, which nobody has written";
    }
    const bool unordered_write = cell.writer >= 0 && cell.writer != self &&
                                 cell.written == period_ &&
                                 !(cell.writer / 32 == warp && cell.written_warp < warp_period);
    if (unordered_write) {
      return (writes ? "writes byte " : "reads byte ") + std::to_string(i) +
             " of shared memory, which thread " + std::to_string(cell.writer) +
             " writes with no barrier between them";
    }
    if (!writes) {
      const bool fresh = cell.read != period_;
      const bool same_warp = cell.reading_warp == warp;
      if (fresh || (same_warp && cell.read_warp < warp_period)) {
        cell.reader = self;
        cell.reading_warp = warp;
      } else if (cell.reader != self) {
        cell.reader = several;
        if (!same_warp) cell.reading_warp = several;
      }
      cell.read = period_;
      cell.read_warp = warp_period;
      continue;
    }
    const bool read_by_others = cell.read == period_ && cell.reader != self &&
                                !(cell.reading_warp == warp && cell.read_warp < warp_period);
    if (read_by_others) {
      return "writes byte " + std::to_string(i) + " of shared memory, which " +
             (cell.reader < 0 ? "other threads read"
                              : "thread " + std::to_string(cell.reader) + " reads") +
             " with no barrier between them";
    }
    cell.writer = self;
    cell.written = period_;
    cell.written_warp = warp_period;
    cell.block = block_;
  }
  return {};
}

std::string SharedWatch::atomic(std::size_t offset, std::size_t bytes, bool all_seen) {
  if (outside(offset, bytes)) return "changes " + beyond(offset, bytes);
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    if (all_seen && cells_[i].block != block_) {
      return "changes byte " + std::to_string(i) + " of shared memory, which nobody has written";
    }
  }
  return {};
}

}  // namespace standin
