// The rows of class centers that a walk reads and updates, tile by tile, wherever they are stored:
// f32 or bf16, in the device's memory or the host's.
//
// Products read f32 rows side by side. Where rows do not stand so (sampled, bf16) a tile's are
// written to scratch first, which stays in the second cache.
//
// From the host's memory a tile's rows come to the device on the context's second stream while the
// tile before is multiplied, into one of two places; updated rows go back on the kernel's own
// stream, so that both directions are busy at once. Sampled rows are read and written where they
// stand by a kernel, others by the copying engines. Of a walked row with D columns in elements of s
// bytes and n slots the link carries, in bytes of a step,
//   to the device    s D (1 + 1 + n)      the first walk; the second with its slots
//   back             s D (1 + n)
// at up to 64 GB/s each way (PCIe 5, 16 lanes), which is what bounds a step: 1.6 million rows of
// 512 in f32 with a velocity take 0.15 s.
//
// Ownership: TileRows holds events and is kept by its kernel; everything else is in the kernel's
// scratch. Nothing is allocated in a launch, and all of it can be captured.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "plugins/devices/cuda/ops/class_center.h"
#include "plugins/devices/cuda/runtime/stream.h"

namespace ftrain::cuda {

// Class centers, then the slots that are walked with them.
using RowTensors = std::span<void* const>;

class TileRows {
 public:
  // `tensors`: how many are walked.
  TileRows(const Walk& walk, std::int64_t tensors, const Context& context);

  // The kernel's scratch for it.
  struct Space {
    float* widened = nullptr;                  // the tile's rows as f32
    std::array<std::vector<char*>, 2> staged;  // by place and tensor: rows from the host's memory
  };
  Space take(Scratch& scratch) const;

  // A walk over all tiles in order: begin(), then for each tile centers() [, tensors(), update,
  // done()]. `rows`: the sampled ones, or nullptr.
  struct Launch {
    const TileRows& of;
    const Space& space;
    RowTensors stored;
    const std::int32_t* rows;
    cudaStream_t stream;

    void begin() const;
    // The tile's rows. Fills `inverse` ([count]) unless it is nullptr.
    const float* centers(std::int64_t first, std::int64_t count, float* inverse) const;
    // Where the tile's rows are to be updated: those that are stored, or (packed) copies.
    std::vector<void*> tensors(std::int64_t first) const;
    // The tile is dealt with. `changed`: copies go back to where they are stored.
    void done(std::int64_t first, std::int64_t count, bool changed) const;

   private:
    void fetch(std::int64_t first) const;
    std::size_t place(std::int64_t first) const {
      return static_cast<std::size_t>(first / of.walk_.tile % 2);
    }
    cudaStream_t copies() const;
  };

  bool packed() const { return walk_.host; }

 private:
  struct Order {
    Event begun;
    std::array<Event, 2> fetched, freed;  // by place
  };

  Walk walk_;
  std::int64_t tensors_;
  const Context* context_;
  std::shared_ptr<Order> order_;  // where there is a second stream
};

}  // namespace ftrain::cuda
