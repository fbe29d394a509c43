// Who touched which byte of shared memory, and when: finds reads of what nobody wrote and accesses
// of two threads that nothing orders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace standin {

class SharedWatch {
 public:
  explicit SharedWatch(std::size_t most) : cells_(most) {}

  void begin_block(std::size_t bytes, std::size_t warps);
  void barrier() { ++period_; }                           // all threads of the block
  void barrier(unsigned warp) { ++warp_periods_[warp]; }  // those of a warp

  // Empty, or what is wrong with the access, as it goes on after "thread t".
  std::string access(std::size_t offset, std::size_t bytes, unsigned thread, bool writes);
  // Atomics are ordered among themselves. `all_seen`: writes of plain code are watched too.
  std::string atomic(std::size_t offset, std::size_t bytes, bool all_seen);

 private:
  static constexpr int nobody = -1, several = -2;

  // Periods are counted through all blocks, so that nothing is cleared between them.
  struct Cell {
    std::uint64_t written = 0, read = 0;            // in which period of the block
    std::uint64_t written_warp = 0, read_warp = 0;  // and of the thread's warp
    int writer = nobody;
    int reader = nobody;        // several: of one warp
    int reading_warp = nobody;  // several: of several
    std::uint64_t block = 0;    // that wrote it
  };

  bool outside(std::size_t offset, std::size_t bytes) const;
  std::string beyond(std::size_t offset, std::size_t bytes) const;

  std::vector<Cell> cells_;
  std::vector<std::uint64_t> warp_periods_;
  std::size_t bytes_ = 0;
  std::uint64_t period_ = 1, block_ = 0;
};

}  // namespace standin
