// What the class-center kernels share: where their operands stand, how the walk is cut into tiles,
// and the launches that both walks begin with.
//
// A tile's rows, its cosines and its gradient stay in the second cache, so that memory sees each
// row of class centers once. Products go through tile_product(), margins and updates through the
// tables of the head and the optimizer.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/model/device_functions.h"
#include "plugins/devices/cuda/node_kernel.h"

namespace ftrain::cuda {

// Operand positions, see core/graph/opdef/class_center.cpp.
namespace forward_input {
enum : std::size_t { features, norms, labels, weight, target, rows };
}
namespace backward_input {
enum : std::size_t {
  features,
  norms,
  labels,
  weight,
  target,
  log_sum,
  inverse,
  rows,
  cosines,
  earlier,
  rate,
  ok,
  slots
};
}

// Cuts arrays off one piece of scratch, one after another. Without a beginning it only counts.
class Scratch {
 public:
  explicit Scratch(void* begin = nullptr) : begin_(static_cast<char*>(begin)) {}
  template <class T>
  T* take(std::int64_t count) {
    auto* const at = reinterpret_cast<T*>(begin_ + bytes_);
    bytes_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return at;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  char* begin_;
  std::size_t bytes_ = 0;
};

// The walk over class centers in the order of `walked` positions: all rows, or the sampled ones.
struct Walk {
  std::int64_t batch = 0, width = 0;
  std::int64_t walked = 0;  // positions, unused slots of a sample included
  std::int64_t first_class = 0, classes = 0;
  bool sampled = false;
  const Margin* margin = nullptr;
  float gradient_scale = 1;
  std::int64_t tile = 0;    // positions of a tile; the last may have fewer
  std::int64_t slices = 1;  // see DeviceMargin::forward
  std::int64_t splits = 1;  // of the features' gradient, see Product

  static Walk of(const Node& node, std::size_t weight, std::size_t rows, const Context& context);
  const DeviceMargin& functions() const { return *static_cast<const DeviceMargin*>(margin->cuda); }

  // f(first position, count) for each tile.
  template <class F>
  void each_tile(const F& f) const {
    for (std::int64_t first = 0; first < walked; first += tile) {
      f(first, std::min(tile, walked - first));
    }
  }
};

// What margins know of samples, in scratch.
struct Samples {
  MarginRow<float>* info = nullptr;
  std::int32_t* own = nullptr;

  static Samples take(Scratch& scratch, std::int64_t batch) {
    return {scratch.take<MarginRow<float>>(batch), scratch.take<std::int32_t>(batch)};
  }
};

// Fills samples.info.
void describe(std::int64_t batch, const float* target, const float* norms, const Samples& samples,
              cudaStream_t stream);
// Fills samples.own. `rows`: nullptr, or the sampled rows.
void find_own(const Walk& walk, const std::int64_t* labels, const std::int32_t* rows,
              const Samples& samples, cudaStream_t stream);
// The tile's rows, side by side: where they stand, or in `copy` when they are sampled. Fills
// `inverse` ([count]) unless it is nullptr.
const float* rows_of_tile(const Walk& walk, const float* weight, const std::int32_t* rows,
                          std::int64_t first, std::int64_t count, float* inverse, float* copy,
                          cudaStream_t stream);

std::string refuse_walk(const Node& node, const KernelEnvironment& environment);

// The kernels of class_center_backward.cu and class_center_sample.cu.
void add_class_center_backward(KernelList& list);
void add_class_sampling(KernelList& list);

}  // namespace ftrain::cuda
