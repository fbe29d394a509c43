// What the class-center kernels share: how the walk is cut into tiles, and the launches that both
// walks begin with.
//
// A tile's rows, its cosines and its gradient stay in the second cache, so that memory sees each
// row of class centers once. Products go through ProductPlans, margins and updates through the
// tables of the head and the optimizer, rows come from where class_center_rows.h finds them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "ftrain/model/device_functions.h"
#include "ftrain/ops/class_center.h"
#include "plugins/devices/cuda/ops/node_kernel.h"
#include "plugins/devices/cuda/ops/tile_product.h"

namespace ftrain::cuda {

namespace forward_input = center_forward;
namespace backward_input = center_pass;

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
  bool bf16 = false;  // what class centers and slots are stored in, otherwise f32
  bool host = false;  // they are stored in the host's memory
  const Margin* margin = nullptr;
  float gradient_scale = 1;
  std::int64_t tile = 0;    // positions of a tile; the last may have fewer
  std::int64_t slices = 1;  // see DeviceMargin::forward
  std::int64_t splits = 1;  // of the features' gradient at most, see ProductShape

  static Walk of(const Node& node, std::size_t weight, std::size_t rows, const Context& context);
  std::int64_t element_bytes() const { return bf16 ? 2 : 4; }
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

// What the head's graph half gives a margin: [count, batch] of an operand that may be missing.
struct Terms {
  std::size_t operand = 0;
  std::int64_t count = 0;

  static Terms of(const Node& node, std::size_t operand) {
    return {operand, node.inputs[operand].valid() ? node.input(operand).shape[0] : 0};
  }
};
// Fills samples.info.
void describe(std::int64_t batch, const float* target, const float* norms, const Terms& terms,
              const Buffers& at, const Samples& samples, cudaStream_t stream);
// Fills samples.own. `rows`: nullptr, or the sampled rows.
void find_own(const Walk& walk, const std::int64_t* labels, const std::int32_t* rows,
              const Samples& samples, cudaStream_t stream);
// The products of a walk, of full tiles and of the last one.
class TileProducts {
 public:
  // `second`: the second walk's, and its cosines unless they are `kept`.
  TileProducts(const Walk& walk, bool second, bool kept, const Context& context);

  std::size_t scratch_bytes() const { return scratch_bytes_; }
  // The results of `features` to be added up.
  std::int64_t splits() const { return splits_; }

  // [count, batch] = centers features^T
  void cosines(std::int64_t count, const float* centers, const float* features, float* to,
               void* scratch, cudaStream_t stream) const {
    plans(count).cosines->run(centers, features, to, false, scratch, stream);
  }
  // splits x [batch, width] (+)= slopes^T centers
  void features(std::int64_t count, const float* slopes, const float* centers, float* to, bool add,
                void* scratch, cudaStream_t stream) const {
    plans(count).features->run(slopes, centers, to, add, scratch, stream);
  }
  // [count, width] = slopes features
  void rows(std::int64_t count, const float* slopes, const float* features, float* to,
            void* scratch, cudaStream_t stream) const {
    plans(count).rows->run(slopes, features, to, false, scratch, stream);
  }

 private:
  struct Plans {
    std::shared_ptr<const ProductPlan> cosines, features, rows;
  };
  const Plans& plans(std::int64_t count) const { return count == tile_ ? full_ : last_; }

  std::int64_t tile_, splits_ = 1;
  std::size_t scratch_bytes_ = 0;
  Plans full_, last_;
};

std::string refuse_walk(const Node& node, const KernelEnvironment& environment);

// The kernels of class_center_backward.cu and class_center_sample.cu.
void add_class_center_backward(KernelList& list);
void add_class_sampling(KernelList& list);

}  // namespace ftrain::cuda
