// The second walk: the features' gradient, and the class centers' gradient or update.
#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "plugins/devices/cpu/class_center/stored_rows.h"
#include "plugins/devices/cpu/class_center/tiled.h"

namespace ftrain::cpu {
namespace {

using class_center::row_block;

class Backward final : public TiledWalk {
 public:
  Backward(const Node& node, const KernelEnvironment& environment, bool update)
      : TiledWalk(
            Walk::of(node, backward_input::weight, backward_input::rows, backward_input::terms),
            environment, true),
        sampled_(node.inputs[backward_input::rows].valid()),
        adds_(node.inputs[backward_input::earlier].valid()) {
    // Products for several row blocks at once read the features of a large batch less often.
    chunk_ = walk_.batch <= 128 ? row_block : 4 * row_block;
    if (!update) return;
    update_ = &node.attributes.payload<Update>("update");
    scalars_.decay = node.attributes.number("decay");
    rate_factor_ = node.attributes.number("rate_factor");
    all_rows_ = node.attributes.flag("all_rows");
    if (!walk_.bf16) return;
    bf16_.emplace(node);
    space_.resize(static_cast<std::size_t>(bf16_->space() * threads_));
  }

  // Elements of the earlier gradient are read where they are stored.
  int overwrites() const override {
    return adds_ && update_ == nullptr ? static_cast<int>(backward_input::earlier) : -1;
  }

  void launch() override {
    const auto* rows = in<std::int32_t>(backward_input::rows);
    const std::int64_t used =
        begin_walk(in<std::int64_t>(backward_input::labels), rows,
                   in<float>(backward_input::target), in<float>(backward_input::norms),
                   in<float>(backward_input::terms), in<float>(backward_input::features));
    if (update_ == nullptr) {
      float* const unused = out(backward_output::weight) + used * walk_.width;
      std::fill(unused, unused + (walk_.walked - used) * walk_.width, 0.0f);
    } else {
      scalars_.rate = static_cast<double>(*in<float>(backward_input::rate)) * rate_factor_;
      const auto* const step = in<std::int64_t>(backward_input::step);
      scalars_.step = step != nullptr ? *step + 1 : 1;
      row_steps_ = in<float>(backward_input::row_steps);
      active_ = *in<float>(backward_input::ok) != 0.0f;
      slots_.clear();
      for (std::size_t i = backward_input::first_slot; i < inputs_.size(); ++i) {
        slots_.push_back(in<float>(i));
      }
    }
#pragma omp parallel num_threads(threads_)
    {
      const int thread = omp_get_thread_num();
      walk(thread, rows, used);
      if (sampled_ && all_rows_) rest(thread, rows, used);
#pragma omp barrier
      sum_features(thread);
    }
  }

 private:
  void walk(int thread, const std::int32_t* rows, std::int64_t used) {
    const Buffers& own = buffers(thread);
    std::fill(own.dfeatures, own.dfeatures + walk_.width * sizes_.padded, 0.0f);
    // Samples that pad the batch have no softmax.
    const float* const log_sum = in<float>(backward_input::log_sum);
    std::copy(log_sum, log_sum + walk_.batch, own.sum);
    std::fill(own.sum + walk_.batch, own.sum + sizes_.padded, std::numeric_limits<float>::max());
    each_tile(thread, in<void>(backward_input::weight), rows, used, [&](const Tile& tile) {
      find_cosines(tile, own);
      if (plain_)
        plain_slopes(tile, own);
      else
        margin_slopes(tile, own);
      if (!walk_.margin->normalized) std::fill(own.along, own.along + tile.count, 0.0f);
      functions_.add_feature_gradients(sizes_, tile.rows, tile.count, own.cosines, tile.next,
                                       own.dfeatures);
      finish_rows(tile, own, thread);
    });
  }

  void find_cosines(const Tile& tile, const Buffers& own) const {
    const float* const inverse = in<float>(backward_input::inverse_norms) + tile.begin;
    std::copy(inverse, inverse + tile.count, own.inverse);
    std::fill(own.inverse + tile.count, own.inverse + tile_, 0.0f);
    const float* kept = in<float>(backward_input::cosines);
    if (kept == nullptr) {
      functions_.cosines(sizes_, tile.rows, tile.count, by_column_, own.inverse, nullptr,
                         own.cosines);
      return;
    }
    kept += tile.begin * walk_.batch;
    for (std::int64_t i = 0; i < tile.count; ++i) {
      float* const row = own.cosines + i * sizes_.padded;
      std::copy(kept + i * walk_.batch, kept + (i + 1) * walk_.batch, row);
      std::fill(row + walk_.batch, row + sizes_.padded, 0.0f);
    }
  }

  // Of a sample's own class: d loss / d cosine.
  float own_slope(std::size_t sample) const {
    const Dual<float> made = target(sample);
    const float probability = std::exp(made.value - in<float>(backward_input::log_sum)[sample]);
    return (probability - 1.0f) * made.slope * static_cast<float>(walk_.gradient_scale);
  }

  void plain_slopes(const Tile& tile, const Buffers& own) const {
    // Without its margin a sample's own class may have e^30 times its probability: taken out again
    // of a sum it would leave nothing but rounding. So it goes in where the probability is 0.
    constexpr float nowhere = -1e30f;
    float* kept = own.by_sample;
    each_own(tile, [&](std::size_t b, std::int64_t i) {
      *kept++ =
          std::exchange(own.cosines[i * sizes_.padded + static_cast<std::int64_t>(b)], nowhere);
    });
    const class_center::Scaling scaling = this->scaling();
    functions_.to_slopes(sizes_, tile.count, scaling,
                         static_cast<float>(walk_.gradient_scale) * scaling.scale, own.sum,
                         own.inverse, own.cosines, own.along);
    const float* cosine = own.by_sample;
    each_own(tile, [&](std::size_t b, std::int64_t i) {
      const float slope = own_slope(b) * own.inverse[i];
      own.cosines[i * sizes_.padded + static_cast<std::int64_t>(b)] = slope;
      own.along[i] += own.inverse[i] * slope * *cosine++;
    });
  }

  void margin_slopes(const Tile& tile, const Buffers& own) const {
    others(tile, own, true);
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      functions_.probabilities(own.by_sample + b * tile_, own.slopes + b * tile_,
                               static_cast<float>(walk_.gradient_scale), own.sum[b], tile.count);
    }
    each_own(tile, [&](std::size_t b, std::int64_t i) {
      own.by_sample[static_cast<std::int64_t>(b) * tile_ + i] = own_slope(b);
    });
    for (std::int64_t i = 0; i < tile.count; ++i) {
      float* const row = own.cosines + i * sizes_.padded;
      float sum = 0;
      for (std::int64_t b = 0; b < walk_.batch; ++b) {
        const float slope = own.by_sample[b * tile_ + i] * own.inverse[i];
        sum += slope * row[b];
        row[b] = slope;
      }
      std::fill(row + walk_.batch, row + sizes_.padded, 0.0f);
      own.along[i] = own.inverse[i] * sum;
    }
  }

  void finish_rows(const Tile& tile, const Buffers& own, int thread) {
    const auto* const rows = in<std::int32_t>(backward_input::rows);
    const float* fetch[4 * row_block];
    for (std::int64_t i = 0; i < tile.count; i += chunk_) {
      const std::int64_t count = std::min(chunk_, tile.count - i);
      const std::int64_t blocks = (count + row_block - 1) / row_block * row_block;
      const bool fetches = list_slots(tile, i + chunk_, fetch);
      functions_.row_gradients(sizes_, tile.rows + i, blocks, by_row_,
                               own.cosines + i * sizes_.padded, own.along + i,
                               fetches ? fetch : nullptr, own.gradient, stride_);
      // Rows that stand one behind the other go at once, where one number is for all.
      const bool joined =
          !sampled_ && !walk_.bf16 && stride_ == walk_.width && row_steps_ == nullptr;
      for (std::int64_t j = 0; j < count; j += joined ? count : 1) {
        const std::int64_t position = tile.begin + i + j;
        finish(position, rows != nullptr ? rows[position] : position, own.gradient + j * stride_,
               joined ? count : 1, thread);
      }
    }
  }

  // The first slot's rows for positions from `i` of the tile on, to fetch.
  bool list_slots(const Tile& tile, std::int64_t i, const float** list) const {
    if (update_ == nullptr || slots_.empty() || walk_.bf16) return false;
    const float* const* rows = i < tile.count ? tile.rows + i : tile.next;
    if (rows == nullptr) return false;
    const float* const weight = in<float>(backward_input::weight);
    const std::int64_t room = i < tile.count ? tile_ - i : tile_;
    for (std::int64_t j = 0; j < chunk_; ++j) {
      list[j] = slots_[0] + (rows[std::min(j, room - 1)] - weight);
    }
    return true;
  }

  // `count` rows from walked position `position` on, which are those of the weight from `row` on:
  // stores their gradient or updates them.
  void finish(std::int64_t position, std::int64_t row, float* gradient, std::int64_t count,
              int thread) {
    const std::int64_t elements = count * walk_.width;
    if (adds_) {
      const float* const earlier = in<float>(backward_input::earlier) + position * walk_.width;
      for (std::int64_t i = 0; i < elements; ++i) gradient[i] += earlier[i];
    }
    if (update_ == nullptr) {
      std::memcpy(out(backward_output::weight) + position * walk_.width, gradient,
                  static_cast<std::size_t>(elements) * sizeof(float));
      return;
    }
    update(row, gradient, count, thread);
  }

  void update(std::int64_t row, const float* gradient, std::int64_t count, int thread) {
    if (!active_) return;
    UpdateScalars scalars = scalars_;
    if (row_steps_ != nullptr) scalars.step = count_update(row_steps_, row);  // one row
    if (bf16_) {                                                              // one row
      (*bf16_)(inputs_, row, gradient, *update_, scalars, space_.data() + bf16_->space() * thread);
      return;
    }
    const std::int64_t first = row * walk_.width;
    float* slots[8];
    for (std::size_t i = 0; i < slots_.size(); ++i) slots[i] = slots_[i] + first;
    update_->f32(update_->functor, in<float>(backward_input::weight) + first, slots, gradient,
                 count * walk_.width, scalars);
  }

  // Rows that were not sampled move with gradient 0.
  void rest(int thread, const std::int32_t* rows, std::int64_t used) {
    const std::int64_t width = walk_.width;
    const std::int64_t first = walk_.classes * thread / threads_;
    const std::int64_t last = walk_.classes * (thread + 1) / threads_;
    float* const zero = buffers(thread).gradient;
    std::fill(zero, zero + width, 0.0f);
    const std::int32_t* next = std::lower_bound(rows, rows + used, first);
    for (std::int64_t r = first; r < last; ++r) {
      if (next != rows + used && *next == r)
        ++next;
      else
        update(r, zero, 1, thread);
    }
  }

  void sum_features(int thread) {
    const std::int64_t width = walk_.width;
    const std::int64_t first = walk_.batch * thread / threads_;
    const std::int64_t last = walk_.batch * (thread + 1) / threads_;
    float* const made = update_ == nullptr ? out(backward_output::features) : out(0);
    for (std::int64_t d = 0; d < width; ++d) {
      for (std::int64_t b = first; b < last; ++b) {
        float sum = 0;
        for (int t = 0; t < threads_; ++t) sum += buffers(t).dfeatures[d * sizes_.padded + b];
        made[b * width + d] = sum;
      }
    }
  }

  const Update* update_ = nullptr;
  UpdateScalars scalars_;
  double rate_factor_ = 1;
  bool all_rows_ = false, active_ = true, sampled_, adds_;
  std::int64_t chunk_;
  std::vector<float*> slots_;
  float* row_steps_ = nullptr;
  std::optional<Bf16RowUpdate> bf16_;
  std::vector<float> space_;  // of the above, of each thread
};

}  // namespace

std::unique_ptr<Kernel> make_tiled_backward(const Node& node, const KernelEnvironment& environment,
                                            bool update) {
  return std::make_unique<Backward>(node, environment, update);
}

}  // namespace ftrain::cpu
