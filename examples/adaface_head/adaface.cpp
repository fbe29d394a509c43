// AdaFace: a margin that follows the quality of an image, as the norm of its feature tells it. Kim,
// Jain, Liu, "AdaFace: Quality Adaptive Margin for Face Recognition" (2022).
//
// The norms' mean and deviation are kept from step to step as running means; a row's norm in
// deviations from the mean, times h and within [-1, 1], is its term k. The target's logit is
// cos(theta - m k) - (m + m k). No gradient goes through the norms.
#include <cmath>
#include <numbers>

#include "ftrain/head.h"

namespace {

namespace ops = ftrain::ops;

// Kinks: cosines are kept 1e-3 away from -1 and 1, and the moved angle 1e-3 away from 0 and pi;
// where one of these bounds holds the slope is 0.
struct AdaFaceMargin {
  float margin = 0.4f;

  static constexpr bool plain_others = false;
  static constexpr bool normalized = true;

  template <class T>
  FTRAIN_HD ftrain::Dual<T> target(T cosine, const ftrain::MarginRow<T>& row) const {
    const ftrain::Dual<T> kept = other(cosine, row);
    const T k = row.term[0], room = T(1e-3);
    T moved = std::acos(kept.value) - T(margin) * k;
    const bool inside = moved >= room && moved <= T(std::numbers::pi) - room;
    if (moved < room) moved = room;
    if (moved > T(std::numbers::pi) - room) moved = T(std::numbers::pi) - room;
    const T sine = std::sqrt((T(1) - kept.value) * (T(1) + kept.value));
    return {std::cos(moved) - (T(margin) + T(margin) * k),
            inside ? kept.slope * std::sin(moved) / sine : T(0)};
  }
  template <class T>
  FTRAIN_HD ftrain::Dual<T> other(T cosine, const ftrain::MarginRow<T>&) const {
    const T most = T(1) - T(1e-3);
    if (cosine > most) return {most, T(0)};
    if (cosine < -most) return {-most, T(0)};
    return {cosine, T(1)};
  }
};

struct AdaFaceKeys {
  double margin = 0.4, concentration = 0.333, momentum = 0.01;
  std::string statistics = "global";
};

class AdaFaceGraph final : public ftrain::HeadGraph {
 public:
  explicit AdaFaceGraph(const AdaFaceKeys& keys) : keys_(keys) {}

  Statistics statistics_of() const override {
    return keys_.statistics == "rank" ? Statistics::rank : Statistics::global;
  }

  // The step's own norms are in the running means that its margins are made of.
  void statistics(const ftrain::Scope& scope, const ftrain::HeadSignals& batch) override {
    const ftrain::Value norms = within(batch.norms);
    const std::int64_t count = norms.shape()[0];
    if (count < 2) {
      throw ftrain::ConfigError(
          "[head] adaface: the deviation of one sample's norm is not defined; give a step two "
          "samples at least, or statistics = \"global\" on several ranks");
    }
    const ftrain::Value mean = ops::mean(norms);
    const ftrain::Value off = ops::add(norms, repeated(ops::scale(mean, -1), norms));
    const ftrain::Value variance =
        ops::scale(ops::sum(ops::mul(off, off)), 1 / static_cast<double>(count - 1));
    mean_ = renewed(scope, "norm_mean", 20, mean);
    deviation_ = renewed(scope, "norm_deviation", 100, ops::sqrt(variance));
  }

  ftrain::HeadTerms terms(const ftrain::Scope&, const ftrain::HeadSignals& rows) override {
    const ftrain::Value norms = within(rows.norms);
    const ftrain::Value off = ops::add(norms, repeated(ops::scale(mean_.renewed, -1), norms));
    const ftrain::Value factor =
        ops::scale(ops::reciprocal(ops::shift(deviation_.renewed, 1e-3)), keys_.concentration);
    return {.terms = {ops::clamp(ops::scale_by(off, factor), -1, 1)}, .extra_loss = {}};
  }

  void finish(const ftrain::Scope&, ftrain::Value ok) override {
    for (const Running& running : {mean_, deviation_}) {
      ops::assign(running.state, running.renewed, ok);
    }
  }

 private:
  struct Running {
    ftrain::Value state, renewed;
  };

  Running renewed(const ftrain::Scope& scope, const char* name, double first,
                  ftrain::Value now) const {
    const ftrain::Value state = scope.statistic(name, {}, first);
    return {state,
            ops::add(ops::scale(state, 1 - keys_.momentum), ops::scale(now, keys_.momentum))};
  }
  static ftrain::Value within(ftrain::Value norms) { return ops::clamp(norms, 1e-3, 100); }
  static ftrain::Value repeated(ftrain::Value scalar, ftrain::Value like) {
    return ops::fill_like(scalar, like.shape());
  }

  AdaFaceKeys keys_;
  Running mean_, deviation_;
};

struct AdaFace final : ftrain::MarginHead {
  AdaFaceKeys own;

  void configure(ftrain::Keys& keys) override {
    MarginHead::configure(keys);
    keys.bind("margin", own.margin, "m, the largest change of angle and cosine",
              ftrain::at_least(0));
    keys.bind("concentration", own.concentration,
              "h: the share of a deviation of the norms that makes the whole margin",
              ftrain::at_least(0));
    keys.bind("momentum", own.momentum, "weight of a step in the running mean and deviation",
              ftrain::between(0, 1));
    keys.bind("statistics", own.statistics,
              "mean and deviation over all ranks and micro-batches, or over each rank's samples",
              ftrain::one_of(std::vector<std::string>{"global", "rank"}));
  }
  std::shared_ptr<const ftrain::Margin> margin() const override {
    return std::make_shared<ftrain::HostMargin<AdaFaceMargin>>(
        "adaface", AdaFaceMargin{static_cast<float>(own.margin)}, *this);
  }
  std::unique_ptr<ftrain::HeadGraph> graph_half() const override {
    return std::make_unique<AdaFaceGraph>(own);
  }
};

}  // namespace

FTRAIN_PLUGIN(adaface, registry) {
  registry.add<ftrain::MarginHead, AdaFace>("adaface", "a margin that follows the feature's norm");
}
