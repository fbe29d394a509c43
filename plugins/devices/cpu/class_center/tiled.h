// The walk in tiles that stay in a core's cache, products by oneDNN's sgemm.
//
// Each thread owns a contiguous run of classes and walks it tile by tile. A tile of class centers
// is multiplied with all features, its cosines are worked on in place and dropped: logits of all
// classes never exist. Sampled rows are gathered into the tile first. Partial sums of the threads
// are added in thread order, so a run repeats to the bit on as many threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "core/runtime/kernel.h"
#include "plugins/devices/cpu/class_center/operands.h"
#include "plugins/devices/cpu/class_center/vector.h"

namespace ftrain::cpu {

namespace vec = class_center;

// C [m, n] = A B + beta C, row-major; inside a parallel region oneDNN uses the calling thread
// alone.
inline void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                 const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta,
                 float* c, std::int64_t ldc) {
  dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, beta,
             c, ldc);
}

// Bytes of so many floats, in whole cache lines.
inline std::size_t aligned(std::int64_t floats) {
  return (static_cast<std::size_t>(floats) * sizeof(float) + 63) / 64 * 64;
}

// What both walks share: the tile's size, its share of classes a thread, its buffers.
class TiledWalk : public Kernel {
 public:
  TiledWalk(const Walk& walk, int threads, bool sampled)
      : walk_(walk), threads_(threads), sampled_(sampled) {
    // Class centers, their gradient and the cosines of a tile: about half of a 1 MiB L2.
    constexpr std::int64_t tile_bytes = 512 * 1024;
    const std::int64_t row_bytes = (2 * walk.width + walk.batch) * 4;
    tile_ = std::clamp<std::int64_t>(tile_bytes / row_bytes / 16 * 16, 16, 1024);
    plain_ = walk.margin->functions<float>().others == nullptr;
  }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    inputs_.assign(inputs.begin(), inputs.end());
    outputs_.assign(outputs.begin(), outputs.end());
    scratch_ = static_cast<std::byte*>(scratch);
  }

 protected:
  template <class T>
  T* in(std::size_t i) const {
    return static_cast<T*>(inputs_[i]);
  }
  float* out(std::size_t i) const { return static_cast<float*>(outputs_[i]); }

  struct Run {
    std::int64_t begin, end;
  };
  Run run_of(int thread, std::int64_t used) const {
    const std::int64_t tiles = (used + tile_ - 1) / tile_;
    const std::int64_t begin = tiles * thread / threads_, end = tiles * (thread + 1) / threads_;
    return {std::min(begin * tile_, used), std::min(end * tile_, used)};
  }

  // The tile's class centers, contiguous: where they stand, or gathered.
  const float* tile_weights(const float* weight, const std::int32_t* rows, std::int64_t begin,
                            std::int64_t count, float* gathered) const {
    if (rows == nullptr) return weight + begin * walk_.width;
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(gathered + i * walk_.width, weight + rows[begin + i] * walk_.width,
                  static_cast<std::size_t>(walk_.width) * sizeof(float));
    }
    return gathered;
  }

  // cosines [batch, count] of the tile -> logits; own columns by the margin's target. `slopes` may
  // be null, and stays unused for plain margins.
  void to_logits(float* cosines, float* slopes, std::int64_t count, const float* inverse) const {
    const Margin& margin = *walk_.margin;
    const float scale = static_cast<float>(margin.scale);
    if (plain_) {
      const float limit = margin.normalized ? scale : std::numeric_limits<float>::infinity();
      for (std::int64_t b = 0; b < walk_.batch; ++b) {
        vec::scale_clamped(cosines + b * tile_, margin.normalized ? inverse : nullptr, scale, limit,
                           count);
      }
      return;
    }
    if (margin.normalized) {
      for (std::int64_t b = 0; b < walk_.batch; ++b) {
        vec::multiply(cosines + b * tile_, inverse, count);
      }
    }
    margin.f32.others(margin.functor,
                      {walk_.batch, count, tile_, cosines, slopes, row_info_.data()});
  }

  Walk walk_;
  int threads_;
  bool sampled_, plain_;
  std::int64_t tile_;
  std::vector<void*> inputs_, outputs_;
  std::byte* scratch_ = nullptr;
  std::vector<std::int64_t> own_;
  std::vector<MarginRow<float>> row_info_;
};

std::unique_ptr<Kernel> make_tiled_forward(const Node& node, int threads);
// With `update` the rows are updated in place, else their gradient is stored.
std::unique_ptr<Kernel> make_tiled_backward(const Node& node, int threads, bool update);

}  // namespace ftrain::cpu
