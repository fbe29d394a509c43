// What the kernels of the batch-norm family share: their activations as tiles, and the coefficients
// of a channel.
#pragma once

#include <cmath>
#include <memory>
#include <string>

#include "plugins/devices/cpu/simd/norm_tiles.h"
#include "plugins/devices/cpu/simd/tiles.h"

namespace ftrain::cpu {

class NormKernel : public BoundKernel {
 public:
  // `x`: an activation of the node, which all others are like; `groups`: runs of samples with
  // statistics of their own.
  NormKernel(const TensorType& x, std::int64_t groups, const KernelEnvironment& environment)
      : BoundKernel(environment),
        groups_(groups),
        tiles_(tiles_of(x, groups)),
        shape_{tiles_.rows, tiles_.stride, tiles_.block, x.dtype == DType::bf16},
        element_(static_cast<std::int64_t>(size_of(x.dtype))),
        bytes_(x.bytes()),
        images_(x.shape.rank() == 4) {}

 protected:
  const void* read(std::size_t input, std::int64_t offset) const {
    return static_cast<const std::byte*>(inputs_[input]) + offset * element_;
  }
  void* written(std::size_t output, std::int64_t offset) const {
    return static_cast<std::byte*>(outputs_[output]) + offset * element_;
  }
  // Whether to write this output past the caches.
  bool streams(std::size_t output = 0) const {
    return images_ && writes_around_caches(bytes_, output);
  }
  std::int64_t width() const { return groups_ * tiles_.channels(); }
  // Samples and positions of a channel in a group.
  std::int64_t samples() const { return tiles_.outer / groups_ * tiles_.rows; }

  std::int64_t groups_;
  Tiles tiles_;
  TileShape shape_;

 private:
  std::int64_t element_;
  std::size_t bytes_;
  bool images_;
};

// gamma / sqrt(variance + eps)
inline double norm_factor(float gamma, float variance, double eps) {
  return gamma / std::sqrt(variance + eps);
}

// The kernels of norm chains, by what they make (see core/ops/norm_chain.h). Each refuses the
// others'.
struct ChainKernel {
  std::string (*refuse)(const Node& node, const KernelEnvironment& environment);
  std::unique_ptr<Kernel> (*make)(const Node& node, const KernelEnvironment& environment);
};
ChainKernel chains_of_given_statistics();  // batch_norm.cpp
ChainKernel chains_of_own_statistics();    // whole_norm.cpp
ChainKernel gradients_of_sums_alone();     // batch_norm_gradient.cpp
ChainKernel gradients_of_given_sums();     // batch_norm_gradient.cpp
ChainKernel gradients_with_their_sums();   // whole_norm_gradient.cpp

}  // namespace ftrain::cpu
