// The second walk: the features' gradient, and the class centers' gradient or update.
#include <omp.h>

#include "core/model/optimizer.h"
#include "plugins/devices/cpu/class_center/tiled.h"

namespace ftrain::cpu {
namespace {

class Backward final : public TiledWalk {
 public:
  Backward(const Node& node, int threads, bool update)
      : TiledWalk(
            Walk::of(node, backward_input::labels, backward_input::weight, backward_input::rows),
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
    walk_.make_rows(in<float>(backward_input::target), in<float>(backward_input::norms), row_info_);
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
  void to_slopes(float* logits, const float* slopes, std::int64_t begin, std::int64_t count) const {
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

}  // namespace

std::unique_ptr<Kernel> make_tiled_backward(const Node& node, int threads, bool update) {
  return std::make_unique<Backward>(node, threads, update);
}

}  // namespace ftrain::cpu
