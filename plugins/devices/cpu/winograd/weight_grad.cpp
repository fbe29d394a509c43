// conv2d_weight_grad: the points of the images by those of the gradients, summed over all tiles.
//
// Each thread has filters of its own and goes through all tiles in order, so there is nothing to
// add up at the end and the sums do not depend on the number of threads.
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/winograd/geometry.h"

namespace ftrain::cpu::winograd {
namespace {

// Floats of points: of a slice of images and gradients, which threads share; of a group of filters.
constexpr std::int64_t shared_points = 12 << 18, group_points = 5 << 16;
constexpr std::int64_t run_tiles = 64;

class WeightGrad final : public Kernel {
 public:
  WeightGrad(const Node& node, const KernelEnvironment& environment)
      : passes_(passes_for(environment.isa)),
        threads_(environment.threads),
        block_(passes_.block),
        x_(node.input(1), block_),
        dy_(node.input(0), block_),
        padding_(node.attributes.integer("padding")),
        tiling_(dy_, std::max(shared_points / (points * block_ * (x_.blocks + dy_.blocks)),
                              std::int64_t{16})),
        x_points_(x_.blocks, tiling_.slice, block_),
        dy_points_(dy_.blocks, tiling_.slice, block_) {
    const std::int64_t most =
        std::max(group_points / (points * x_.blocks * block_ * block_), std::int64_t{2});
    std::int64_t groups = parts_of(dy_.blocks, most);
    if (dy_.blocks >= 2 * threads_) groups = parts_of(groups, threads_) * threads_;
    outputs_ = parts_of(dy_.blocks, groups);
    groups = parts_of(dy_.blocks, outputs_);
    inputs_ = groups >= threads_ ? x_.blocks : parts_of(x_.blocks, parts_of(threads_, groups));
    filter_points_ = FilterPoints(inputs_ * block_, block_);
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(x_points_.floats() + dy_points_.floats() +
                                    threads_ * thread_floats()) *
           sizeof(float);
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    dy_data_ = inputs[0];
    x_data_ = inputs[1];
    dw_ = static_cast<float*>(outputs[0]);
    scratch_ = static_cast<float*>(scratch);
  }

  void launch() override {
#pragma omp parallel num_threads(threads_)
    work();
  }

 private:
  std::int64_t thread_floats() const {
    return outputs_ * filter_points_.block_stride;
  }

  void work() {
    float* const filters = scratch_ + x_points_.floats() + dy_points_.floats() +
                           omp_get_thread_num() * thread_floats();
    const std::int64_t input_groups = parts_of(x_.blocks, inputs_);
    const std::int64_t output_groups = parts_of(dy_.blocks, outputs_);
    for (std::int64_t slice = 0; slice < tiling_.slices; ++slice) {
      const std::int64_t runs = parts_of(tiling_.size(slice), run_tiles);
      share((x_.blocks + dy_.blocks) * runs, [&](std::int64_t i) {
        const std::int64_t block = i / runs, tile = i % runs * run_tiles;
        transform(slice, block, tile, std::min(run_tiles, tiling_.size(slice) - tile));
      });
#pragma omp barrier
      share(output_groups * input_groups, [&](std::int64_t i) {
        correlate(slice, i / input_groups * outputs_, i % input_groups * inputs_, filters);
      });
#pragma omp barrier
    }
  }

  // `block`: of x, and then of dy.
  void transform(std::int64_t slice, std::int64_t block, std::int64_t tile,
                 std::int64_t count) const {
    const bool of_x = block < x_.blocks;
    if (!of_x) block -= x_.blocks;
    const Points& lie = of_x ? x_points_ : dy_points_;
    TileRun whole = of_x ? x_.run(x_data_, block) : dy_.run(dy_data_, block);
    whole.point_stride = lie.point_stride;
    float* const at =
        scratch_ + (of_x ? 0 : x_points_.floats()) + block * lie.block_stride + tile * block_;
    tiling_.each_run(tiling_.first(slice) + tile, count, of_x ? padding_ : 0, whole,
                     [&](TileRun run, std::int64_t before) {
                       run.at = at + before * block_;
                       of_x ? passes_.patches(run) : passes_.gradients(run);
                     });
  }

  void correlate(std::int64_t slice, std::int64_t output, std::int64_t input,
                 float* filters) const {
    Correlation sums;
    sums.a_stride = x_points_.block_stride;
    sums.b_stride = dy_points_.block_stride;
    sums.out_stride = filter_points_.block_stride;
    sums.rows = std::min(inputs_, x_.blocks - input);
    sums.columns = std::min(outputs_, dy_.blocks - output);
    const float* const x = scratch_ + input * x_points_.block_stride;
    const float* const dy = scratch_ + x_points_.floats() + output * dy_points_.block_stride;
    for (std::int64_t point = 0; point < points; ++point) {
      const Range range = tiling_.with_point(point, tiling_.first(slice), tiling_.size(slice));
      sums.depth = range.count();
      sums.a = x + point * x_points_.point_stride + range.first * block_;
      sums.b = dy + point * dy_points_.point_stride + range.first * block_;
      sums.out = filters + point * filter_points_.point_stride;
      passes_.correlate(sums);
    }
    const std::int64_t square = block_ * block_;
    for (std::int64_t k = 0; k < sums.columns; ++k) {
      for (std::int64_t c = 0; c < sums.rows; ++c) {
        FilterBlock run;
        run.filters = dw_ + ((output + k) * x_.blocks + input + c) * taps * square;
        run.at = filters + k * filter_points_.block_stride + c * square;
        run.point_stride = filter_points_.point_stride;
        run.add = slice > 0;
        passes_.filter_gradients(run);
      }
    }
  }

  Passes passes_;
  int threads_;
  std::int64_t block_;
  Images x_, dy_;
  std::int64_t padding_;
  Tiling tiling_;
  Points x_points_, dy_points_;
  FilterPoints filter_points_;
  std::int64_t outputs_ = 0, inputs_ = 0;  // blocks of filters in a thread's group
  void *dy_data_ = nullptr, *x_data_ = nullptr;
  float *dw_ = nullptr, *scratch_ = nullptr;
};

}  // namespace

std::unique_ptr<Kernel> make_weight_grad(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<WeightGrad>(node, environment);
}

}  // namespace ftrain::cpu::winograd
