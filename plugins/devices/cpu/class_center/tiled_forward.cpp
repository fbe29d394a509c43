// The first walk: each row's online (max, sum) over the classes of this rank.
#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "plugins/devices/cpu/class_center/tiled.h"

namespace ftrain::cpu {
namespace {

class Forward final : public TiledWalk {
 public:
  Forward(const Node& node, const KernelEnvironment& environment)
      : TiledWalk(Walk::of(node, forward_input::weight, forward_input::rows, forward_input::terms),
                  environment, false),
        keeps_(node.outputs.size() > 2) {}

  void launch() override {
    const auto* rows = in<std::int32_t>(forward_input::rows);
    const std::int64_t used =
        begin_walk(in<std::int64_t>(forward_input::labels), rows, in<float>(forward_input::target),
                   in<float>(forward_input::norms), in<float>(forward_input::terms),
                   in<float>(forward_input::features));
    std::fill(out(1) + used, out(1) + walk_.walked, 0.0f);
    if (keeps_) {
      std::fill(out(2) + used * walk_.batch, out(2) + walk_.walked * walk_.batch, 0.0f);
    }
#pragma omp parallel num_threads(threads_)
    walk(omp_get_thread_num(), rows, used);
    combine();
  }

 private:
  void walk(int thread, const std::int32_t* rows, std::int64_t used) {
    const Buffers& own = buffers(thread);
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      own.running[2 * b] = -std::numeric_limits<double>::infinity();
      own.running[2 * b + 1] = 0;
    }
    each_tile(thread, in<void>(forward_input::weight), rows, used, [&](const Tile& tile) {
      find_cosines(tile, own);
      find_logits(tile, own);
      functions_.largest_and_sum(sizes_, tile.count, own.cosines, own.largest, own.sum);
      for (std::int64_t b = 0; b < walk_.batch; ++b) {
        fold(own.running + 2 * b, static_cast<double>(own.largest[b]),
             static_cast<double>(own.sum[b]));
      }
    });
  }

  void find_cosines(const Tile& tile, const Buffers& own) const {
    if (walk_.margin->normalized) {
      functions_.inverse_lengths(sizes_, tile.rows, tile.count, own.inverse);
      std::fill(own.inverse + tile.count, own.inverse + tile_, 0.0f);
    } else {
      std::fill(own.inverse, own.inverse + tile_, 1.0f);
    }
    std::copy(own.inverse, own.inverse + tile.count, out(1) + tile.begin);
    functions_.cosines(sizes_, tile.rows, tile.count, by_column_, own.inverse, tile.next,
                       own.cosines);
    if (!keeps_) return;
    const std::size_t bytes = static_cast<std::size_t>(walk_.batch) * sizeof(float);
    float* const kept = out(2) + tile.begin * walk_.batch;
    for (std::int64_t i = 0; i < tile.count; ++i) {
      std::memcpy(kept + i * walk_.batch, own.cosines + i * sizes_.padded, bytes);
    }
  }

  void find_logits(const Tile& tile, const Buffers& own) const {
    if (plain_) {
      functions_.to_logits(sizes_, tile.count, scaling(), own.cosines);
    } else {
      others(tile, own, false);
      for (std::int64_t i = 0; i < tile.count; ++i) {
        for (std::int64_t b = 0; b < walk_.batch; ++b) {
          own.cosines[i * sizes_.padded + b] = own.by_sample[b * tile_ + i];
        }
      }
    }
    each_own(tile, [&](std::size_t b, std::int64_t i) {
      own.cosines[i * sizes_.padded + static_cast<std::int64_t>(b)] = target(b).value;
    });
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
        const double* part = buffers(t).running + 2 * b;
        fold(total, part[0], part[1]);
      }
      out(0)[2 * b] = static_cast<float>(total[0]);
      out(0)[2 * b + 1] = static_cast<float>(total[1]);
    }
  }

  bool keeps_;
};

}  // namespace

std::unique_ptr<Kernel> make_tiled_forward(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<Forward>(node, environment);
}

}  // namespace ftrain::cpu
