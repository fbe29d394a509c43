// The walk in tiles that stay in a core's cache, products by oneDNN's sgemm.
//
// Each thread owns a contiguous run of classes and walks it tile by tile. A tile of class centers is
// multiplied with all features, its cosines are worked on in place and dropped: logits of all classes
// never exist. Sampled rows are gathered into the tile first. Partial sums of the threads are added
// in thread order, so a run repeats to the bit on as many threads.
#include <omp.h>

#include <cstring>
#include <limits>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/model/optimizer.h"
#include "plugins/devices/cpu/class_center/operands.h"
#include "plugins/devices/cpu/class_center/vector.h"
#include "plugins/devices/cpu/kernels.h"

namespace ftrain::cpu {
namespace {

namespace vec = class_center;

// C [m, n] = A B + beta C, row-major; inside a parallel region oneDNN uses the calling thread alone.
void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc) {
  dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, beta,
             c, ldc);
}

std::size_t aligned(std::int64_t floats) {
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
  void bind(std::span<void* const> inputs, std::span<void* const> outputs,
            void* scratch) override {
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

class Forward final : public TiledWalk {
 public:
  Forward(const Node& node, int threads)
      : TiledWalk(Walk::of(node, forward_input::labels, forward_input::weight,
                           forward_input::rows),
                  threads, node.inputs[forward_input::rows].valid()) {}

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(threads_) * thread_bytes();
  }

  void launch() override {
    const auto* rows = in<std::int32_t>(forward_input::rows);
    const std::int64_t used = walk_.used(rows);
    walk_.find_targets(in<std::int64_t>(forward_input::labels), rows, used, own_);
    walk_.make_rows(in<float>(forward_input::target), in<float>(forward_input::norms), row_info_);
    std::fill(out(1) + used, out(1) + walk_.walked, 0.0f);
#pragma omp parallel num_threads(threads_)
    walk(omp_get_thread_num(), rows, used);
    combine();
  }

 private:
  std::size_t thread_bytes() const {
    return aligned(walk_.batch * tile_) + aligned(sampled_ ? tile_ * walk_.width : 0) +
           aligned(walk_.batch * 4);
  }
  float* cosines_of(int thread) const {
    return reinterpret_cast<float*>(scratch_ + static_cast<std::size_t>(thread) * thread_bytes());
  }
  float* gathered_of(int thread) const {
    return cosines_of(thread) + aligned(walk_.batch * tile_) / sizeof(float);
  }
  // Per sample: largest, sum (as a double).
  double* running_of(int thread) const {
    return reinterpret_cast<double*>(
        gathered_of(thread) + aligned(sampled_ ? tile_ * walk_.width : 0) / sizeof(float));
  }

  void walk(int thread, const std::int32_t* rows, std::int64_t used) {
    float* const cosines = cosines_of(thread);
    double* const running = running_of(thread);
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      running[2 * b] = -std::numeric_limits<double>::infinity();
      running[2 * b + 1] = 0;
    }
    const float* const weight = in<float>(forward_input::weight);
    const auto [first, last] = run_of(thread, used);
    for (std::int64_t begin = first; begin < last; begin += tile_) {
      const std::int64_t count = std::min(tile_, last - begin);
      const float* tile = tile_weights(weight, rows, begin, count, gathered_of(thread));
      float* const inverse = out(1) + begin;
      for (std::int64_t i = 0; i < count; ++i) {
        const float* row = tile + i * walk_.width;
        inverse[i] = walk_.margin->normalized
                         ? 1.0f / std::max(std::sqrt(vec::dot(row, row, walk_.width)), 1e-12f)
                         : 1.0f;
      }
      gemm(false, true, walk_.batch, count, walk_.width, in<float>(forward_input::features),
           walk_.width, tile, walk_.width, 0.0f, cosines, tile_);
      to_logits(cosines, nullptr, count, inverse);
      for (std::int64_t b = 0; b < walk_.batch; ++b) {
        const auto s = static_cast<std::size_t>(b);
        float* const logits = cosines + b * tile_;
        if (own_[s] >= begin && own_[s] < begin + count) {
          logits[own_[s] - begin] =
              walk_.margin->f32.target(walk_.margin->functor, row_info_[s]).value;
        }
        const vec::MaxSum part = vec::max_sum(logits, count);
        fold(running + 2 * b, static_cast<double>(part.largest), static_cast<double>(part.sum));
      }
    }
  }

  static void fold(double* running, double largest, double sum) {
    if (!(sum == 0)) {  // NaN goes on
      const double top = std::max(running[0], largest);
      running[1] = (running[1] == 0 ? 0 : running[1] * std::exp(running[0] - top)) +
                   sum * std::exp(largest - top);
      running[0] = top;
    }
  }

  void combine() {
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      double total[2] = {-std::numeric_limits<double>::infinity(), 0};
      for (int t = 0; t < threads_; ++t) {
        const double* part = running_of(t) + 2 * b;
        fold(total, part[0], part[1]);
      }
      out(0)[2 * b] = static_cast<float>(total[0]);
      out(0)[2 * b + 1] = static_cast<float>(total[1]);
    }
  }
};

class Backward final : public TiledWalk {
 public:
  Backward(const Node& node, int threads, bool update)
      : TiledWalk(Walk::of(node, backward_input::labels, backward_input::weight,
                           backward_input::rows),
                  threads, node.inputs[backward_input::rows].valid()) {
    if (!update) return;
    update_ = &node.attributes.payload<Update>("update");
    scalars_.decay = node.attributes.number("decay");
    rate_factor_ = node.attributes.number("rate_factor");
    all_rows_ = node.attributes.flag("all_rows");
  }

  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(threads_) * thread_bytes();
  }

  void launch() override {
    const auto* rows = in<std::int32_t>(backward_input::rows);
    const std::int64_t used = walk_.used(rows);
    walk_.find_targets(in<std::int64_t>(backward_input::labels), rows, used, own_);
    walk_.make_rows(in<float>(backward_input::target), in<float>(backward_input::norms),
                    row_info_);
    if (update_ != nullptr) {
      scalars_.rate = static_cast<double>(*in<float>(backward_input::rate)) * rate_factor_;
      active_ = *in<float>(backward_input::ok) != 0.0f;
      slots_.clear();
      for (std::size_t i = backward_input::slots; i < inputs_.size(); ++i) {
        slots_.push_back(in<float>(i));
      }
    }
#pragma omp parallel num_threads(threads_)
    {
      const int thread = omp_get_thread_num();
      walk(thread, rows, used);
      if (sampled_) rest(thread, rows, used);
#pragma omp barrier
      sum_features(thread);
    }
  }

 private:
  std::size_t thread_bytes() const {
    return aligned(walk_.batch * tile_) * (plain_ ? 1 : 2) + aligned(tile_ * walk_.width) * 2 +
           aligned(walk_.batch * walk_.width);
  }
  float* cosines_of(int thread) const {
    return reinterpret_cast<float*>(scratch_ + static_cast<std::size_t>(thread) * thread_bytes());
  }
  float* slopes_of(int thread) const {
    return plain_ ? nullptr : cosines_of(thread) + aligned(walk_.batch * tile_) / sizeof(float);
  }
  float* gathered_of(int thread) const {
    return cosines_of(thread) + aligned(walk_.batch * tile_) / sizeof(float) * (plain_ ? 1 : 2);
  }
  float* gradient_of(int thread) const {
    return gathered_of(thread) + aligned(tile_ * walk_.width) / sizeof(float);
  }
  float* features_of(int thread) const {
    return gradient_of(thread) + aligned(tile_ * walk_.width) / sizeof(float);
  }

  void walk(int thread, const std::int32_t* rows, std::int64_t used) {
    const std::int64_t width = walk_.width;
    float* const cosines = cosines_of(thread);
    float* const slopes = slopes_of(thread);
    float* const gradient = gradient_of(thread);
    float* const dfeatures = features_of(thread);
    std::fill(dfeatures, dfeatures + walk_.batch * width, 0.0f);
    float* const weight = in<float>(backward_input::weight);
    const float* const features = in<float>(backward_input::features);
    const auto [first, last] = run_of(thread, used);
    for (std::int64_t begin = first; begin < last; begin += tile_) {
      const std::int64_t count = std::min(tile_, last - begin);
      const float* tile = tile_weights(weight, rows, begin, count, gathered_of(thread));
      const float* inverse = in<float>(backward_input::inverse) + begin;
      gemm(false, true, walk_.batch, count, width, features, width, tile, width, 0.0f, cosines,
           tile_);
      to_logits(cosines, slopes, count, inverse);
      to_slopes(cosines, slopes, begin, count);
      // dW^ = dcos^T X needs dcos alone; dX = (dcos / |w|) W.
      gemm(true, false, count, width, walk_.batch, cosines, tile_, features, width, 0.0f, gradient,
           width);
      if (walk_.margin->normalized) {
        for (std::int64_t b = 0; b < walk_.batch; ++b) {
          vec::multiply(cosines + b * tile_, inverse, count);
        }
      }
      gemm(false, false, walk_.batch, width, count, cosines, tile_, tile, width, 1.0f, dfeatures,
           width);
      finish_rows(weight, rows, begin, count, tile, inverse, gradient);
    }
  }

  // Logits -> d loss / d cosine, in place.
  void to_slopes(float* logits, const float* slopes, std::int64_t begin,
                 std::int64_t count) const {
    const Margin& margin = *walk_.margin;
    const float factor = static_cast<float>(walk_.gradient_scale);
    const float scale = static_cast<float>(margin.scale);
    // A clamped cosine's logit stands exactly at the limit.
    const float limit = margin.normalized ? scale : std::numeric_limits<float>::infinity();
    const float* log_sum = in<float>(backward_input::log_sum);
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      const auto s = static_cast<std::size_t>(b);
      float* const row = logits + b * tile_;
      vec::probabilities(row, slopes ? slopes + b * tile_ : nullptr,
                         slopes ? factor : factor * scale, limit, log_sum[b], count);
      if (own_[s] >= begin && own_[s] < begin + count) {
        const Dual<float> own = margin.f32.target(margin.functor, row_info_[s]);
        row[own_[s] - begin] = (std::exp(own.value - log_sum[b]) - 1.0f) * own.slope * factor;
      }
    }
  }

  void finish_rows(float* weight, const std::int32_t* rows, std::int64_t begin, std::int64_t count,
                   const float* tile, const float* inverse, float* gradient) {
    const std::int64_t width = walk_.width;
    for (std::int64_t i = 0; i < count; ++i) {
      float* const g = gradient + i * width;
      const float* const w = tile + i * width;
      if (walk_.margin->normalized) {
        const float along = vec::dot(g, w, width) * inverse[i] * inverse[i];
        vec::project(g, w, along, inverse[i], width);
      }
      const std::int64_t r = rows ? rows[begin + i] : begin + i;
      if (update_ == nullptr) {
        std::memcpy(out(1) + r * width, g, static_cast<std::size_t>(width) * sizeof(float));
      } else {
        apply(weight, r, g);
      }
    }
  }

  void apply(float* weight, std::int64_t r, const float* gradient) {
    if (!active_) return;
    float* slots[8];
    for (std::size_t i = 0; i < slots_.size(); ++i) slots[i] = slots_[i] + r * walk_.width;
    update_->f32(update_->functor, weight + r * walk_.width, slots, gradient, walk_.width,
                 scalars_);
  }

  // Rows that were not sampled: gradient 0, or an update with it when all rows move.
  void rest(int thread, const std::int32_t* rows, std::int64_t used) {
    const bool dense = update_ == nullptr;
    if (!dense && !all_rows_) return;
    const std::int64_t width = walk_.width;
    const std::int64_t first = walk_.classes * thread / threads_;
    const std::int64_t last = walk_.classes * (thread + 1) / threads_;
    float* const zero = gradient_of(thread);
    std::fill(zero, zero + width, 0.0f);
    const std::int32_t* next = std::lower_bound(rows, rows + used, first);
    for (std::int64_t r = first; r < last; ++r) {
      if (next != rows + used && *next == r) {
        ++next;
      } else if (dense) {
        std::fill(out(1) + r * width, out(1) + (r + 1) * width, 0.0f);
      } else {
        apply(in<float>(backward_input::weight), r, zero);
      }
    }
  }

  void sum_features(int thread) {
    const std::int64_t total = walk_.batch * walk_.width;
    const std::int64_t first = total * thread / threads_, last = total * (thread + 1) / threads_;
    std::memcpy(out(0) + first, features_of(0) + first,
                static_cast<std::size_t>(last - first) * sizeof(float));
    for (int t = 1; t < threads_; ++t) {
      vec::accumulate(out(0) + first, features_of(t) + first, last - first);
    }
  }

  const Update* update_ = nullptr;
  UpdateScalars scalars_;
  double rate_factor_ = 1;
  bool all_rows_ = false, active_ = true;
  std::vector<float*> slots_;
};

std::string refuse_f64(const Node& node, const KernelEnvironment&) {
  return node.input(0).dtype == DType::f32 ? "" : "only f32";
}

}  // namespace

void add_class_center_kernels(KernelList& list) {
  add_plain_class_center_kernels(list);
  using Environment = const KernelEnvironment&;
  list.add({"class_center_forward", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) -> std::unique_ptr<Kernel> {
              return std::make_unique<Forward>(node, e.threads);
            }});
  list.add({"class_center_backward", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) -> std::unique_ptr<Kernel> {
              return std::make_unique<Backward>(node, e.threads, false);
            }});
  list.add({"class_center_update", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) -> std::unique_ptr<Kernel> {
              return std::make_unique<Backward>(node, e.threads, true);
            }});
}

}  // namespace ftrain::cpu
