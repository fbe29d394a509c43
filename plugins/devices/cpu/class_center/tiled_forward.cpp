// The first walk: each row's online (max, sum) over the classes of this rank.
#include <omp.h>

#include "plugins/devices/cpu/class_center/tiled.h"

namespace ftrain::cpu {
namespace {

class Forward final : public TiledWalk {
 public:
  Forward(const Node& node, int threads)
      : TiledWalk(Walk::of(node, forward_input::labels, forward_input::weight, forward_input::rows),
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
    return reinterpret_cast<double*>(gathered_of(thread) +
                                     aligned(sampled_ ? tile_ * walk_.width : 0) / sizeof(float));
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

}  // namespace

std::unique_ptr<Kernel> make_tiled_forward(const Node& node, int threads) {
  return std::make_unique<Forward>(node, threads);
}

}  // namespace ftrain::cpu
