// Which classes a step of Partial FC works on (class_is_drawn in ftrain/ops/random.h), in
// order.
//
// Nothing is stored of a draw: blocks draw once to count and, with the counts before them known,
// once more to write. Weights are not looked at, so the arithmetic of the draws is the bound.
#pragma once

#include <cstdint>

#include "ftrain/ops/random.h"
#include "plugins/devices/cuda/ops/kernels/warp.cuh"

namespace ftrain::cuda {

// Classes by fours: a draw has four numbers. The first draw of a rank may begin before its first
// class.
struct ClassDraws {
  static constexpr int draws = 4, each = 4 * draws;  // of a thread
  static constexpr unsigned threads = 256;
  static constexpr std::int64_t of_block = std::int64_t{each} * threads;

  std::uint64_t key;
  std::int64_t first_class, classes, capacity;
  float rate;

  // Classes before this rank's that the first draw covers, and the numbers drawn from there.
  FTRAIN_HD std::int64_t offset() const { return first_class % 4; }
  FTRAIN_HD std::int64_t numbers() const { return offset() + classes; }
};

// How many were counted: the batch's own classes, and others that were drawn.
struct ClassCount {
  std::int32_t own, others;
  __device__ ClassCount operator+(ClassCount more) const {
    return {own + more.own, others + more.others};
  }
};

// A bit for each number, set for classes of the batch.
__global__ void mark_own(ClassDraws of, std::int64_t batch, const std::int64_t* labels,
                         unsigned* own) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= batch) return;
  const std::int64_t row = labels[b] - of.first_class;
  if (row < 0 || row >= of.classes) return;
  const std::int64_t number = row + of.offset();
  atomicOr(own + number / 32, 1u << (number % 32));
}

__global__ void clear_words(std::int64_t count, unsigned* words) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) words[i] = 0;
}

// A thread's classes as bits: those of the batch, and others that were drawn.
struct DrawnClasses {
  unsigned own = 0, others = 0;

  __device__ DrawnClasses(const ClassDraws& of, std::uint64_t step, const unsigned* marked,
                          std::int64_t number) {
    if (number >= of.numbers()) return;
    // A thread's bits are half a word.
    own = marked[number / 32] >> (number % 32) & 0xffffu;
    const auto first = static_cast<std::uint64_t>((of.first_class + number) / 4);
    for (int d = 0; d < ClassDraws::draws; ++d) {
      const Philox draw = Philox::at(of.key, step, first + static_cast<std::uint64_t>(d));
      for (int i = 0; i < 4; ++i) {
        const std::int64_t at = number + 4 * d + i;
        const bool here = at >= of.offset() && at < of.numbers();
        if (here && draw.uniform(i) < of.rate) others |= 1u << (4 * d + i);
      }
    }
    others &= ~own;
  }
  __device__ ClassCount count() const { return {__popc(own), __popc(others)}; }
};

// Where the thread's classes begin among the numbers.
__device__ inline std::int64_t first_number() {
  return static_cast<std::int64_t>(blockIdx.x) * ClassDraws::of_block +
         std::int64_t{ClassDraws::each} * threadIdx.x;
}

// The counts of the block's threads before this one. `total` becomes that of all. `space`: one
// ClassCount a warp.
__device__ inline ClassCount counted_before(ClassCount mine, ClassCount* space, ClassCount& total) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const int warps = static_cast<int>(blockDim.x) / warp_size;
  ClassCount upto = mine;
  for (int apart = 1; apart < warp_size; apart *= 2) {
    const ClassCount left{__shfl_up_sync(all_lanes, upto.own, apart),
                          __shfl_up_sync(all_lanes, upto.others, apart)};
    if (lane >= apart) upto = upto + left;
  }
  if (lane == warp_size - 1) space[warp] = upto;
  __syncthreads();
  ClassCount before{upto.own - mine.own, upto.others - mine.others};
  total = {0, 0};
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before = before + space[w];
    total = total + space[w];
  }
  __syncthreads();
  return before;
}

__global__ void count_classes(ClassDraws of, const std::int64_t* step, const unsigned* marked,
                              ClassCount* counts) {
  const DrawnClasses drawn(of, static_cast<std::uint64_t>(*step), marked, first_number());
  ClassCount total;
  counted_before(drawn.count(), shared_memory<ClassCount>(), total);
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// Each block's count becomes what comes before it; counts[blocks] is the total. One block.
__global__ void add_counts(std::int64_t blocks, ClassCount* counts) {
  auto* const space = shared_memory<ClassCount>();
  ClassCount base{0, 0};
  for (std::int64_t first = 0; first < blocks; first += blockDim.x) {
    const std::int64_t i = first + threadIdx.x;
    ClassCount total;
    const ClassCount mine = i < blocks ? counts[i] : ClassCount{0, 0};
    const ClassCount before = counted_before(mine, space, total);
    if (i < blocks) counts[i] = base + before;
    base = base + total;
  }
  if (threadIdx.x == 0) counts[blocks] = base;
}

// The batch's own classes have their places whatever the draw says; `room` is for the others, of
// whom the last ones go.
__global__ void write_classes(ClassDraws of, const std::int64_t* step, const unsigned* marked,
                              const ClassCount* counts, std::int64_t blocks, std::int32_t* rows) {
  const std::int64_t first = first_number();
  const DrawnClasses drawn(of, static_cast<std::uint64_t>(*step), marked, first);
  const ClassCount all = counts[blocks];
  const std::int64_t room = of.capacity > all.own ? of.capacity - all.own : 0;
  ClassCount total;
  ClassCount before =
      counts[blockIdx.x] + counted_before(drawn.count(), shared_memory<ClassCount>(), total);
  for (int i = 0; i < ClassDraws::each; ++i) {
    const bool own = (drawn.own >> i & 1u) != 0, other = (drawn.others >> i & 1u) != 0;
    const std::int64_t others = before.others < room ? before.others : room;
    const std::int64_t place = before.own + others;
    if ((own || (other && before.others < room)) && place < of.capacity) {
      rows[place] = static_cast<std::int32_t>(first + i - of.offset());
    }
    before.own += own;
    before.others += other;
  }
}

// Slots that are not in use.
__global__ void write_unused(ClassDraws of, const ClassCount* all, std::int32_t* rows) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t room = of.capacity > all->own ? of.capacity - all->own : 0;
  const std::int64_t used = all->own + (all->others < room ? all->others : room);
  if (i >= used && i < of.capacity) rows[i] = -1;
}

}  // namespace ftrain::cuda
