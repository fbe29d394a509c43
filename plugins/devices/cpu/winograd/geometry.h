// How a convolution is cut into tiles, and how its points lie in memory.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/winograd/passes.h"

namespace ftrain::cpu::winograd {

// One line more than a power of two keeps the streams of a transform out of each other's cache
// sets.
inline constexpr std::int64_t line = 16;

inline std::int64_t whole_lines(std::int64_t floats) {
  return (floats + line - 1) / line * line;
}
inline std::int64_t parts_of(std::int64_t whole, std::int64_t part) {
  return (whole + part - 1) / part;
}

// An activation in blocks of channels.
struct Images {
  Images() = default;
  Images(const TensorType& type, std::int64_t block)
      : bf16(type.dtype == DType::bf16),
        batch(type.shape[0]),
        blocks(type.shape[1] / block),
        height(type.shape[2]),
        width(type.shape[3]),
        plane(height * width * block) {}

  // A run of this image's tiles in a channel block.
  TileRun run(void* data, std::int64_t channel_block) const {
    TileRun run;
    run.image = bf16 ? static_cast<void*>(static_cast<BF16*>(data) + channel_block * plane)
                     : static_cast<void*>(static_cast<float*>(data) + channel_block * plane);
    run.bf16 = bf16;
    run.sample_stride = blocks * plane;
    run.height = height;
    run.width = width;
    return run;
  }

  bool bf16 = false;
  std::int64_t batch = 0, blocks = 0, height = 0, width = 0, plane = 0;
};

// One direction of an image, cut into runs of four results and then of three.
struct Cut {
  Cut() = default;
  explicit Cut(std::int64_t extent) {
    const std::int64_t runs = parts_of(extent, tile_side);
    threes = std::min(runs, runs * tile_side - extent);
    fours = runs - threes;
  }
  std::int64_t fours = 0, threes = 0;
};

struct Range {
  std::int64_t first = 0, last = 0;
  std::int64_t count() const { return std::max(last - first, std::int64_t{0}); }
};

// The tiles that cover the results of all samples, and the slices in which they are worked on.
//
// Tiles of one size follow each other, through all samples: 4x3, 4x4, 3x4, 3x3. So those that have
// a point are neighbours, whichever point it is.
struct Tiling {
  Tiling() = default;
  Tiling(const Images& results, std::int64_t most_in_slice)
      : rows(results.height), columns(results.width) {
    for (std::int64_t kind = 0; kind < kinds; ++kind) {
      ends[kind] = count += results.batch * high(kind) * across(kind);
    }
    slices = parts_of(count, most_in_slice);
    slice = parts_of(count, slices);
    slices = parts_of(count, slice);
  }

  std::int64_t first(std::int64_t number) const { return number * slice; }
  std::int64_t size(std::int64_t number) const { return std::min(slice, count - first(number)); }

  // Of the tiles from `first` on, those that have a point, counted from `first`.
  Range with_point(std::int64_t point, std::int64_t first, std::int64_t tiles) const {
    const bool tall = point / 6 == only_in_fours, broad = point % 6 == only_in_fours;
    const Range all{broad ? ends[0] : 0, tall ? ends[1] : broad ? ends[2] : ends[3]};
    return {std::max(all.first - first, std::int64_t{0}), std::min(all.last - first, tiles)};
  }

  // f(run, tiles before it) for the runs of tiles of one size from `first` on. `margin`: rows and
  // columns of zeros before the image.
  template <class F>
  void each_run(std::int64_t first, std::int64_t tiles, std::int64_t margin, TileRun run,
                const F& f) const {
    for (std::int64_t kind = 0, begin = 0; kind < kinds; begin = ends[kind++]) {
      const std::int64_t from = std::max(first, begin), to = std::min(first + tiles, ends[kind]);
      if (from >= to) continue;
      run.rows = tall(kind) ? 4 : 3;
      run.columns = broad(kind) ? 4 : 3;
      run.top = (tall(kind) ? 0 : rows.fours * 4) - margin;
      run.left = (broad(kind) ? 0 : columns.fours * 4) - margin;
      run.tiles_high = high(kind);
      run.tiles_wide = across(kind);
      run.first = from - begin;
      run.count = to - from;
      f(run, from - first);
    }
  }

  Cut rows, columns;
  std::int64_t count = 0, slices = 0, slice = 0;

 private:
  static constexpr std::int64_t kinds = 4, only_in_fours = 4;
  static bool tall(std::int64_t kind) { return kind < 2; }
  static bool broad(std::int64_t kind) { return kind == 1 || kind == 2; }
  std::int64_t high(std::int64_t kind) const { return tall(kind) ? rows.fours : rows.threes; }
  std::int64_t across(std::int64_t kind) const {
    return broad(kind) ? columns.fours : columns.threes;
  }

  std::int64_t ends[kinds] = {};
};

// Points of the tiles of a slice, [point][channel block][tile][B].
struct Points {
  Points() = default;
  Points(std::int64_t blocks, std::int64_t tiles, std::int64_t block)
      : block_stride(whole_lines(tiles * block) + line),
        point_stride(blocks * block_stride + line) {}

  std::int64_t floats() const { return points * point_stride; }

  std::int64_t block_stride = 0, point_stride = 0;
};

// Points of filters, [output block][point][input][B].
struct FilterPoints {
  FilterPoints() = default;
  FilterPoints(std::int64_t inputs, std::int64_t block)
      : point_stride(inputs * block + line), block_stride(points * point_stride) {}

  std::int64_t point_stride = 0, block_stride = 0;
};

// This thread's part of `items`, inside a parallel region.
template <class F>
void share(std::int64_t items, const F& f) {
  const std::int64_t id = omp_get_thread_num(), threads = omp_get_num_threads();
  for (std::int64_t i = items * id / threads; i < items * (id + 1) / threads; ++i) f(i);
}

// Why a node is not for these kernels; `images`: of which type.
std::string refuse(const Node& node, const KernelEnvironment& environment, DType images);

std::unique_ptr<Kernel> make_convolution(const Node& node, const KernelEnvironment& environment);
std::unique_ptr<Kernel> make_weight_grad(const Node& node, const KernelEnvironment& environment);

}  // namespace ftrain::cpu::winograd
