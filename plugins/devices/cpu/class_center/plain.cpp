// The oracle: one row of one class at a time, sums in double, nothing tiled.
#include <cmath>
#include <limits>
#include <optional>

#include "plugins/devices/cpu/class_center/stored_rows.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/reference/plain.h"

namespace ftrain::cpu {
namespace {

template <class T>
double dot(const T* a, const T* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

template <class T>
T inverse_norm(const Walk& walk, const T* row) {
  if (!walk.margin->normalized) return T(1);
  return static_cast<T>(1 / std::max(std::sqrt(dot(row, row, walk.width)), 1e-12));
}

class Base : public Kernel {
 public:
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    inputs_.assign(inputs.begin(), inputs.end());
    outputs_.assign(outputs.begin(), outputs.end());
  }

 protected:
  template <class T>
  T* in(std::size_t i) const {
    return static_cast<T*>(inputs_[i]);
  }
  template <class T>
  T* out(std::size_t i) const {
    return static_cast<T*>(outputs_[i]);
  }
  std::vector<void*> inputs_, outputs_;
};

template <class T>
class TargetCosine final : public Base {
 public:
  explicit TargetCosine(const Node& node)
      : batch_(node.input(0).shape[0]), first_(node.attributes.integer("first_class")) {
    walk_.width = node.input(0).shape[1];
    walk_.classes = node.input(2).shape[0];
    walk_.bf16 = node.input(2).dtype == DType::bf16;
    walk_.margin = &node.attributes.payload<Margin>("margin");
  }
  void launch() override {
    const auto* labels = in<std::int64_t>(1);
    std::vector<T> space(static_cast<std::size_t>(walk_.width));
    for (std::int64_t b = 0; b < batch_; ++b) {
      const std::int64_t row = labels[b] - first_;
      T cosine = 0;
      if (row >= 0 && row < walk_.classes) {
        const T* weight = stored_row(in<void>(2), walk_.bf16, row, walk_.width, space.data());
        cosine = static_cast<T>(dot(in<T>(0) + b * walk_.width, weight, walk_.width) *
                                static_cast<double>(inverse_norm(walk_, weight)));
      }
      out<T>(0)[b] = cosine;
    }
  }

 private:
  std::int64_t batch_, first_;
  Walk walk_;
};

// The logit of sample b and walked position p, and its slope.
template <class T>
Dual<T> logit(const Walk& walk, T cosine, bool own, const MarginRow<T>& row) {
  const auto& functions = walk.margin->functions<T>();
  if (own) return functions.target(walk.margin->functor, row);
  if (functions.others == nullptr) {
    const T scale = static_cast<T>(walk.margin->scale);
    if (!walk.margin->normalized) return {scale * cosine, scale};
    const bool inside = cosine >= T(-1) && cosine <= T(1);
    return {scale * std::clamp(cosine, T(-1), T(1)), inside ? scale : T(0)};
  }
  T slope = 0;
  functions.others(walk.margin->functor, {1, 1, 1, &cosine, &slope, &row});
  return {cosine, slope};
}

template <class T>
class Forward final : public Base {
 public:
  explicit Forward(const Node& node)
      : walk_(Walk::of(node, forward_input::weight, forward_input::rows, forward_input::terms)) {}
  void launch() override {
    const auto* rows = in<std::int32_t>(forward_input::rows);
    std::vector<T> space(static_cast<std::size_t>(walk_.width));
    const auto row_at = [&](std::int64_t p) {
      return stored_row(in<void>(forward_input::weight), walk_.bf16, rows ? rows[p] : p,
                        walk_.width, space.data());
    };
    const T* features = in<T>(forward_input::features);
    const std::int64_t used = walk_.used(rows), width = walk_.width;
    std::vector<std::int64_t> own;
    std::vector<MarginRow<T>> info;
    walk_.find_targets(in<std::int64_t>(forward_input::labels), rows, used, own);
    walk_.make_rows(in<T>(forward_input::target), in<T>(forward_input::norms),
                    in<T>(forward_input::terms), info);
    T* inverse = out<T>(1);
    std::fill(inverse, inverse + walk_.walked, T(0));
    if (outputs_.size() > 2) {
      std::fill(out<T>(2) + used * walk_.batch, out<T>(2) + walk_.walked * walk_.batch, T(0));
    }
    for (std::int64_t p = 0; p < used; ++p) {
      inverse[p] = inverse_norm(walk_, row_at(p));
    }
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      const auto s = static_cast<std::size_t>(b);
      std::vector<T> logits;
      T largest = -std::numeric_limits<T>::infinity();
      for (std::int64_t p = 0; p < used; ++p) {
        const T* row = row_at(p);
        const T cosine =
            static_cast<T>(dot(features + b * width, row, width) * static_cast<double>(inverse[p]));
        if (outputs_.size() > 2) out<T>(2)[p * walk_.batch + b] = cosine;
        logits.push_back(logit(walk_, cosine, own[s] == p, info[s]).value);
        largest = std::max(largest, logits.back());
      }
      double sum = 0;
      for (const T value : logits) sum += std::exp(static_cast<double>(value - largest));
      out<T>(0)[2 * b] = largest;
      out<T>(0)[2 * b + 1] = static_cast<T>(sum);
    }
  }

 private:
  Walk walk_;
};

template <class T>
class MarginLoss final : public Base {
 public:
  explicit MarginLoss(const Node& node) : ranks_(node.input(center_loss::stats).shape[0]) {
    walk_.batch = node.input(center_loss::target).shape[0];
    walk_.count_of_terms = Walk::terms_of(node, center_loss::terms);
    walk_.margin = &node.attributes.payload<Margin>("margin");
  }
  void launch() override {
    const T* stats = in<T>(center_loss::stats);
    std::vector<MarginRow<T>> info;
    walk_.make_rows(in<T>(center_loss::target), in<T>(center_loss::norms),
                    in<T>(center_loss::terms), info);
    double loss = 0;
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
      for (std::int64_t r = 0; r < ranks_; ++r) {
        largest = std::max(largest, static_cast<double>(stats[2 * (r * walk_.batch + b)]));
      }
      for (std::int64_t r = 0; r < ranks_; ++r) {
        const T* part = stats + 2 * (r * walk_.batch + b);
        // A rank without any class of this step has (-inf, 0).
        if (!(part[1] == T(0))) {  // NaN goes on
          sum += static_cast<double>(part[1]) * std::exp(static_cast<double>(part[0]) - largest);
        }
      }
      const double log_sum = largest + std::log(sum);
      const auto target = walk_.margin->functions<T>().target(walk_.margin->functor,
                                                              info[static_cast<std::size_t>(b)]);
      loss += log_sum - static_cast<double>(target.value);
      out<T>(1)[b] = static_cast<T>(log_sum);
    }
    out<T>(0)[0] = static_cast<T>(loss / static_cast<double>(walk_.batch));
  }

 private:
  std::int64_t ranks_;
  Walk walk_;
};

template <class T>
class TermGradient final : public Base {
 public:
  explicit TermGradient(const Node& node) {
    walk_.batch = node.input(term_gradient::target).shape[0];
    walk_.count_of_terms = Walk::terms_of(node, term_gradient::terms);
    walk_.margin = &node.attributes.payload<Margin>("margin");
    walk_.gradient_scale = node.attributes.number("gradient_scale");
  }
  void launch() override {
    const Margin& margin = *walk_.margin;
    const T* log_sum = in<T>(term_gradient::log_sum);
    std::vector<MarginRow<T>> info;
    walk_.make_rows(in<T>(term_gradient::target), in<T>(term_gradient::norms),
                    in<T>(term_gradient::terms), info);
    for (std::int64_t b = 0; b < walk_.batch; ++b) {
      const MarginRow<T>& row = info[static_cast<std::size_t>(b)];
      const T logit = margin.functions<T>().target(margin.functor, row).value;
      const double softmax = std::exp(static_cast<double>(logit - log_sum[b]));
      T slopes[most_margin_terms];
      margin.functions<T>().target_term_slopes(margin.functor, row, slopes);
      for (std::int64_t i = 0; i < walk_.count_of_terms; ++i) {
        out<T>(0)[i * walk_.batch + b] =
            static_cast<T>((softmax - 1) * static_cast<double>(slopes[i]) * walk_.gradient_scale);
      }
    }
  }

 private:
  Walk walk_;
};

std::string refuse_term_gradient(const Node& node, const KernelEnvironment& environment) {
  const auto& margin = node.attributes.payload<Margin>("margin");
  if (margin.f64.target_term_slopes == nullptr) {
    return "the head " + margin.text() + " takes no gradient through its terms";
  }
  return refuse_plain(node, environment);
}

// The second walk; with `update` it changes weight and slots in place, else it stores dweight,
// which may lie where the earlier gradient does.
template <class T>
class Backward final : public Base {
 public:
  Backward(const Node& node, bool update)
      : walk_(Walk::of(node, backward_input::weight, backward_input::rows, backward_input::terms)),
        adds_(node.inputs[backward_input::earlier].valid()) {
    if (!update) return;
    update_ = &node.attributes.payload<Update>("update");
    scalars_.decay = node.attributes.number("decay");
    rate_factor_ = node.attributes.number("rate_factor");
    all_rows_ = node.attributes.flag("all_rows");
    if (!walk_.bf16) return;
    bf16_.emplace(node);
    space_.resize(static_cast<std::size_t>(bf16_->space()));
  }
  int overwrites() const override {
    return adds_ && update_ == nullptr ? static_cast<int>(backward_input::earlier) : -1;
  }
  void launch() override {
    const auto* rows = in<std::int32_t>(backward_input::rows);
    void* const weight = in<void>(backward_input::weight);
    std::vector<T> space(static_cast<std::size_t>(walk_.width));
    const T* earlier = in<T>(backward_input::earlier);
    const T* features = in<T>(backward_input::features);
    const T* inverse = in<T>(backward_input::inverse_norms);
    const T* log_sum = in<T>(backward_input::log_sum);
    const T* kept = in<T>(backward_input::cosines);
    const std::int64_t used = walk_.used(rows), width = walk_.width;
    std::vector<std::int64_t> own;
    std::vector<MarginRow<T>> info;
    walk_.find_targets(in<std::int64_t>(backward_input::labels), rows, used, own);
    walk_.make_rows(in<T>(backward_input::target), in<T>(backward_input::norms),
                    in<T>(backward_input::terms), info);
    std::vector<double> dfeatures(static_cast<std::size_t>(walk_.batch * width), 0.0);
    std::vector<double> gradient(static_cast<std::size_t>(width));
    std::vector<T> row_gradient(static_cast<std::size_t>(width));
    if (update_ == nullptr) {
      T* dweight = out<T>(backward_output::weight);
      std::fill(dweight + used * width, dweight + walk_.walked * width, T(0));
    }
    std::int64_t next = 0;  // the first row not yet passed
    for (std::int64_t p = 0; p < used; ++p) {
      const std::int64_t r = rows ? rows[p] : p;
      for (; next < r; ++next) rest(next, row_gradient);
      next = r + 1;
      const T* row = stored_row(weight, walk_.bf16, r, width, space.data());
      std::fill(gradient.begin(), gradient.end(), 0.0);
      double along = 0;  // the gradient's part along the row of length 1
      for (std::int64_t b = 0; b < walk_.batch; ++b) {
        const auto s = static_cast<std::size_t>(b);
        const T* x = features + b * width;
        const T cosine = kept
                             ? kept[p * walk_.batch + b]
                             : static_cast<T>(dot(x, row, width) * static_cast<double>(inverse[p]));
        const bool mine = own[s] == p;
        const Dual<T> made = logit(walk_, cosine, mine, info[s]);
        const double softmax = std::exp(static_cast<double>(made.value - log_sum[b]));
        const double slope =
            (softmax - (mine ? 1 : 0)) * static_cast<double>(made.slope) * walk_.gradient_scale;
        along += slope * static_cast<double>(cosine);
        for (std::int64_t d = 0; d < width; ++d) {
          gradient[static_cast<std::size_t>(d)] += slope * static_cast<double>(x[d]);
          dfeatures[static_cast<std::size_t>(b * width + d)] +=
              slope * static_cast<double>(row[d]) * static_cast<double>(inverse[p]);
        }
      }
      project(row, inverse[p], along, gradient);
      for (std::int64_t d = 0; d < width; ++d) {
        const auto i = static_cast<std::size_t>(d);
        row_gradient[i] = static_cast<T>(gradient[i]);
        if (earlier != nullptr) row_gradient[i] += earlier[p * width + d];
      }
      if (update_ == nullptr) {
        std::copy(row_gradient.begin(), row_gradient.end(),
                  out<T>(backward_output::weight) + p * width);
      } else {
        apply(r, row_gradient);
      }
    }
    for (; next < walk_.classes; ++next) rest(next, row_gradient);
    T* made = update_ == nullptr ? out<T>(backward_output::features) : out<T>(0);
    for (std::size_t i = 0; i < dfeatures.size(); ++i) made[i] = static_cast<T>(dfeatures[i]);
  }

 private:
  // Back through the row's normalisation: dw = (g - (g . w^) w^) / |w|.
  void project(const T* row, T inverse, double along, std::vector<double>& gradient) const {
    if (!walk_.margin->normalized) return;
    const auto scale = static_cast<double>(inverse);
    for (std::int64_t d = 0; d < walk_.width; ++d) {
      double& g = gradient[static_cast<std::size_t>(d)];
      g = scale * (g - along * static_cast<double>(row[d]) * scale);
    }
  }
  void apply(std::int64_t r, const std::vector<T>& gradient) {
    if (*in<T>(backward_input::ok) == T(0)) return;
    scalars_.rate = static_cast<double>(*in<float>(backward_input::rate)) * rate_factor_;
    const auto* const step = in<std::int64_t>(backward_input::step);
    auto* const row_steps = in<float>(backward_input::row_steps);
    if (row_steps != nullptr) {
      scalars_.step = count_update(row_steps, r);
    } else if (step != nullptr) {
      scalars_.step = *step + 1;
    }
    if constexpr (std::is_same_v<T, float>) {
      if (bf16_) return (*bf16_)(inputs_, r, gradient.data(), *update_, scalars_, space_.data());
    }
    std::vector<T*> slots;
    for (std::size_t i = backward_input::first_slot; i < inputs_.size(); ++i) {
      slots.push_back(in<T>(i) + r * walk_.width);
    }
    update_->function<T>()(update_->functor, in<T>(backward_input::weight) + r * walk_.width,
                           slots.data(), gradient.data(), walk_.width, scalars_);
  }
  // A row that was not sampled.
  void rest(std::int64_t r, std::vector<T>& zero) {
    if (update_ == nullptr || !all_rows_) return;
    std::fill(zero.begin(), zero.end(), T(0));
    apply(r, zero);
  }

  Walk walk_;
  bool adds_;  // to an earlier gradient
  const Update* update_ = nullptr;
  UpdateScalars scalars_;
  double rate_factor_ = 1;
  bool all_rows_ = false;
  std::optional<Bf16RowUpdate> bf16_;
  std::vector<float> space_;  // of the above
};

// class_is_drawn() for every class of this rank, with one draw for four neighbours.
class SampleClasses final : public Base {
 public:
  explicit SampleClasses(const Node& node)
      : batch_(node.input(0).shape[0]),
        first_(node.attributes.integer("first_class")),
        classes_(node.attributes.integer("local_classes")),
        capacity_(node.attributes.integer("capacity")),
        rate_(static_cast<float>(node.attributes.number("sample_rate"))),
        key_(mix64(static_cast<std::uint64_t>(node.attributes.integer("seed")), sample_purpose)) {}
  void launch() override {
    const auto* labels = in<std::int64_t>(0);
    const auto step = static_cast<std::uint64_t>(*in<std::int64_t>(1));
    own_.clear();
    for (std::int64_t b = 0; b < batch_; ++b) {
      const std::int64_t row = labels[b] - first_;
      if (row >= 0 && row < classes_) own_.push_back(static_cast<std::int32_t>(row));
    }
    std::sort(own_.begin(), own_.end());
    own_.erase(std::unique(own_.begin(), own_.end()), own_.end());
    auto* rows = out<std::int32_t>(0);
    // The batch's own classes have their places whatever the draw says.
    std::int64_t room = capacity_ - static_cast<std::int64_t>(own_.size()), count = 0;
    auto own = own_.begin();
    Philox draw{};
    for (std::int64_t row = 0; row < classes_ && count < capacity_; ++row) {
      const auto global = static_cast<std::uint64_t>(first_ + row);
      if (row == 0 || global % 4 == 0) draw = Philox::at(key_, step, global / 4);
      if (own != own_.end() && *own == row) {
        rows[count++] = static_cast<std::int32_t>(row);
        ++own;
      } else if (room > 0 && draw.uniform(static_cast<int>(global % 4)) < rate_) {
        rows[count++] = static_cast<std::int32_t>(row);
        --room;
      }
    }
    std::fill(rows + count, rows + capacity_, -1);
  }

 private:
  std::int64_t batch_, first_, classes_, capacity_;
  float rate_;
  std::uint64_t key_;
  std::vector<std::int32_t> own_;
};

template <template <class> class K, class... More>
std::unique_ptr<Kernel> of_type(const Node& node, More... more) {
  if (node.input(0).dtype == DType::f64) return std::make_unique<K<double>>(node, more...);
  return std::make_unique<K<float>>(node, more...);
}

}  // namespace

void add_plain_class_center_kernels(KernelList& list) {
  using Environment = const KernelEnvironment&;
  list.add({"target_cosine", "plain", 0, nullptr,
            [](const Node& node, Environment) { return of_type<TargetCosine>(node); }});
  list.add({"class_center_forward", "plain", 0, nullptr,
            [](const Node& node, Environment) { return of_type<Forward>(node); }});
  list.add({"margin_loss", "plain", 0, nullptr,
            [](const Node& node, Environment) { return of_type<MarginLoss>(node); }});
  list.add({"margin_term_gradient", "plain", 0, refuse_term_gradient,
            [](const Node& node, Environment) { return of_type<TermGradient>(node); }});
  list.add({"class_center_backward", "plain", 0, nullptr,
            [](const Node& node, Environment) { return of_type<Backward>(node, false); }});
  list.add({"class_center_update", "plain", 0, nullptr,
            [](const Node& node, Environment) { return of_type<Backward>(node, true); }});
  list.add({"sample_classes", "plain", 0, nullptr,
            [](const Node& node, Environment) -> std::unique_ptr<Kernel> {
              return std::make_unique<SampleClasses>(node);
            }});
}

}  // namespace ftrain::cpu
