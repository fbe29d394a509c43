// conv2d and conv2d_input_grad: the second is the first with the filters turned around and their
// inputs and outputs swapped.
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/winograd/geometry.h"

namespace ftrain::cpu::winograd {
namespace {

// Floats of points of images that threads share (they should stay in the last cache), and that a
// thread keeps for itself (in its own). The latter needs the points of all filters at once.
constexpr std::int64_t shared_points = 12 << 18, own_points = 1 << 17, all_filters = 5 << 17;
// Filters whose points a thread holds, and tiles of their results.
constexpr std::int64_t group_points = 5 << 16, group_tiles = 60;

class Convolution final : public Kernel {
 public:
  Convolution(const Node& node, const KernelEnvironment& environment)
      : passes_(passes_for(environment.isa)),
        threads_(environment.threads),
        block_(passes_.block),
        from_(node.input(0), block_),
        to_(node.outputs[0], block_),
        gradient_(node.op == &ops::def::conv2d_input_grad),
        padding_(node.attributes.integer("padding")) {
    const std::int64_t inputs = from_.blocks * block_, outputs = to_.blocks * block_;
    alone_ = points * inputs * outputs <= all_filters;
    const std::int64_t most = (alone_ ? own_points : shared_points) / (points * inputs);
    tiling_ = Tiling(to_, std::max(most, std::int64_t{12}));
    tile_points_ = Points(from_.blocks, tiling_.slice, block_);
    filter_points_ = FilterPoints(inputs, block_);
    // Groups of an even number of blocks, as the products take them.
    group_ = std::clamp<std::int64_t>(group_points / filter_points_.block_stride / 2 * 2, 2, 8);
    group_ = std::min(group_, to_.blocks);
    tiles_ = std::min(group_tiles, tiling_.slice);
    result_points_ = Points(group_, tiles_, block_);
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(shared_floats() + threads_ * thread_floats()) * sizeof(float);
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    image_ = inputs[0];
    weight_ = static_cast<float*>(inputs[1]);
    result_ = outputs[0];
    scratch_ = static_cast<float*>(scratch);
  }

  void launch() override {
#pragma omp parallel num_threads(threads_)
    alone_ ? work_alone() : work_together();
  }

 private:
  // Shared are the points of all filters, or those of a slice of the images; the other is each
  // thread's own, and the points of results.
  std::int64_t filter_floats(std::int64_t blocks) const {
    return blocks * filter_points_.block_stride;
  }
  std::int64_t shared_floats() const {
    return alone_ ? filter_floats(to_.blocks) : tile_points_.floats();
  }
  std::int64_t thread_floats() const {
    return (alone_ ? tile_points_.floats() : filter_floats(group_)) + result_points_.floats();
  }
  float* own() const {
    return scratch_ + shared_floats() + omp_get_thread_num() * thread_floats();
  }

  // Every thread takes slices of tiles from pixels to results.
  void work_alone() {
    share(to_.blocks * from_.blocks, [&](std::int64_t i) {
      transform_filters(i / from_.blocks, i % from_.blocks,
                        scratch_ + i / from_.blocks * filter_points_.block_stride);
    });
#pragma omp barrier
    float* const images = own();
    share(tiling_.slices, [&](std::int64_t slice) {
      const std::int64_t tiles = tiling_.size(slice);
      for (std::int64_t c = 0; c < from_.blocks; ++c) {
        transform_images(slice, c, 0, tiles, images);
      }
      for (std::int64_t block = 0; block < to_.blocks; block += group_) {
        for (std::int64_t tile = 0; tile < tiles; tile += tiles_) {
          multiply(slice, block, tile, images, scratch_ + filter_floats(block),
                   images + tile_points_.floats());
        }
      }
    });
  }

  // All threads transform a slice of tiles, then each multiplies it by filters of its own.
  void work_together() {
    float* const filters = own();
    float* const results = filters + filter_floats(group_);
    const std::int64_t groups = parts_of(to_.blocks, group_);
    for (std::int64_t slice = 0; slice < tiling_.slices; ++slice) {
      const std::int64_t runs = parts_of(tiling_.size(slice), tiles_);
      share(from_.blocks * runs, [&](std::int64_t i) {
        const std::int64_t tile = i % runs * tiles_;
        transform_images(slice, i / runs, tile, std::min(tiles_, tiling_.size(slice) - tile),
                         scratch_);
      });
#pragma omp barrier
      std::int64_t held = -1;
      share(groups * runs, [&](std::int64_t i) {
        const std::int64_t block = i / runs * group_;
        if (block != held) {
          held = block;
          const std::int64_t count = std::min(group_, to_.blocks - block);
          for (std::int64_t k = 0; k < count; ++k) {
            for (std::int64_t c = 0; c < from_.blocks; ++c) {
              transform_filters(block + k, c, filters + k * filter_points_.block_stride);
            }
          }
        }
        multiply(slice, block, i % runs * tiles_, scratch_, filters, results);
      });
#pragma omp barrier
    }
  }

  // `tile`: counted in the slice, as the points are.
  void transform_images(std::int64_t slice, std::int64_t channel_block, std::int64_t tile,
                        std::int64_t count, float* images) const {
    TileRun whole = from_.run(image_, channel_block);
    whole.point_stride = tile_points_.point_stride;
    float* const at = images + channel_block * tile_points_.block_stride + tile * block_;
    tiling_.each_run(tiling_.first(slice) + tile, count, gradient_ ? 2 - padding_ : padding_, whole,
                     [&](TileRun run, std::int64_t before) {
                       run.at = at + before * block_;
                       passes_.patches(run);
                     });
  }

  void transform_filters(std::int64_t to, std::int64_t from, float* points_of_block) const {
    const std::int64_t size = taps * block_ * block_;
    FilterBlock run;
    run.at = points_of_block + from * block_ * block_;
    run.point_stride = filter_points_.point_stride;
    if (!gradient_) {
      run.filters = weight_ + (to * from_.blocks + from) * size;
      passes_.filters(run);
      return;
    }
    alignas(64) float turned[taps * 16 * 16];
    const float* const weight = weight_ + (from * to_.blocks + to) * size;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const float* const a = weight + tap * block_ * block_;
      float* const b = turned + (taps - 1 - tap) * block_ * block_;
      for (std::int64_t i = 0; i < block_; ++i) {
        for (std::int64_t k = 0; k < block_; ++k) b[k * block_ + i] = a[i * block_ + k];
      }
    }
    run.filters = turned;
    passes_.filters(run);
  }

  // Results of a group of blocks from `block` on and of the tiles from `tile` on.
  void multiply(std::int64_t slice, std::int64_t block, std::int64_t tile, const float* images,
                const float* filters, float* results) const {
    Product product;
    product.a_stride = tile_points_.block_stride;
    product.b_stride = filter_points_.block_stride;
    product.out_stride = result_points_.block_stride;
    product.depth = from_.blocks;
    product.columns = std::min(group_, to_.blocks - block);
    const std::int64_t first = tiling_.first(slice) + tile;
    const std::int64_t tiles = std::min(tiles_, tiling_.size(slice) - tile);
    for (std::int64_t point = 0; point < points; ++point) {
      const Range range = tiling_.with_point(point, first, tiles);
      product.rows = range.count();
      product.a = images + point * tile_points_.point_stride + (tile + range.first) * block_;
      product.b = filters + point * filter_points_.point_stride;
      product.out = results + point * result_points_.point_stride + range.first * block_;
      passes_.multiply(product);
    }
    for (std::int64_t k = 0; k < product.columns; ++k) {
      TileRun whole = to_.run(result_, block + k);
      whole.point_stride = result_points_.point_stride;
      tiling_.each_run(first, tiles, 0, whole, [&](TileRun run, std::int64_t before) {
        run.at = results + k * result_points_.block_stride + before * block_;
        passes_.results(run);
      });
    }
  }

  Passes passes_;
  int threads_;
  std::int64_t block_;
  Images from_, to_;
  bool gradient_, alone_ = false;
  std::int64_t padding_;
  Tiling tiling_;
  Points tile_points_, result_points_;
  FilterPoints filter_points_;
  std::int64_t group_ = 0, tiles_ = 0;
  void *image_ = nullptr, *result_ = nullptr;
  float *weight_ = nullptr, *scratch_ = nullptr;
};

}  // namespace

std::unique_ptr<Kernel> make_convolution(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<Convolution>(node, environment);
}

}  // namespace ftrain::cpu::winograd
