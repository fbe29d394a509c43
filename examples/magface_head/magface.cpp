// MagFace: the margin grows with the norm of the feature, and a loss of its own draws norms up, so
// that the norm comes to measure an image's quality. Meng et al., "MagFace: A Universal
// Representation for Face Recognition and Quality Assessment" (2021).
//
// With a = the norm within [lower_norm, upper_norm], the target's logit is cos(theta + m(a)), m
// linear in a from lower_margin to upper_margin, and each sample adds lambda (a / upper^2 + 1 / a)
// to the loss. The gradient of both goes through the norm.
#include <cmath>

#include "ftrain/head.h"

namespace {

namespace ops = ftrain::ops;

// The row's term is its margin, in radians. Kinks: the target jumps at cosine 0 (easy) or where
// theta + m = pi; sin(theta) is kept at or above 1e-6 in the slope.
struct MagFaceMargin {
  bool easy = true;

  static constexpr bool plain_others = true;
  static constexpr bool normalized = true;

  template <class T>
  FTRAIN_HD ftrain::Dual<T> target(T cosine, const ftrain::MarginRow<T>& row) const {
    const T margin = row.term[0];
    if (!moves(cosine, margin)) return {cosine - fallback(margin), T(1)};
    const T moved = std::acos(cosine) + margin;
    const T sine = std::sqrt((T(1) - cosine) * (T(1) + cosine)), least = T(1e-6);
    return {std::cos(moved), std::sin(moved) / (sine > least ? sine : least)};
  }
  template <class T>
  FTRAIN_HD void target_term_slopes(T cosine, const ftrain::MarginRow<T>& row, T* slopes) const {
    const T margin = row.term[0];
    if (moves(cosine, margin))
      slopes[0] = -std::sin(std::acos(cosine) + margin);
    else
      slopes[0] = easy ? T(0) : -(std::sin(margin) + margin * std::cos(margin));
  }
  template <class T>
  FTRAIN_HD ftrain::Dual<T> other(T cosine, const ftrain::MarginRow<T>&) const {
    return {cosine, T(1)};
  }

 private:
  template <class T>
  FTRAIN_HD bool moves(T cosine, T margin) const {
    return easy ? cosine > T(0) : cosine > -std::cos(margin);
  }
  template <class T>
  FTRAIN_HD T fallback(T margin) const {
    return easy ? T(0) : margin * std::sin(margin);
  }
};

struct MagFaceKeys {
  double lower_norm = 10, upper_norm = 110, lower_margin = 0.45, upper_margin = 0.8, lambda = 35;
  bool easy = true;
};

class MagFaceGraph final : public ftrain::HeadGraph {
 public:
  explicit MagFaceGraph(const MagFaceKeys& keys) : keys_(keys) {}

  ftrain::HeadTerms terms(const ftrain::Scope&, const ftrain::HeadSignals& rows) override {
    const MagFaceKeys& k = keys_;
    const ftrain::Value norms = ops::clamp(rows.norms, k.lower_norm, k.upper_norm);
    const double slope = (k.upper_margin - k.lower_margin) / (k.upper_norm - k.lower_norm);
    const ftrain::Value margins =
        ops::shift(ops::scale(norms, slope), k.lower_margin - slope * k.lower_norm);
    const ftrain::Value draw =
        ops::add(ops::scale(norms, 1 / (k.upper_norm * k.upper_norm)), ops::reciprocal(norms));
    return {.terms = {margins},
            .extra_loss = ops::scale(ops::mean(draw), k.lambda),
            .term_gradient = true};
  }

 private:
  MagFaceKeys keys_;
};

struct MagFace final : ftrain::MarginHead {
  MagFaceKeys own;

  void configure(ftrain::Keys& keys) override {
    MarginHead::configure(keys);
    keys.bind("lower_norm", own.lower_norm, "norms below it count as it", ftrain::above(0));
    keys.bind("upper_norm", own.upper_norm, "norms above it count as it", ftrain::above(0));
    keys.bind("lower_margin", own.lower_margin, "angle added at lower_norm, in radians",
              ftrain::at_least(0));
    keys.bind("upper_margin", own.upper_margin, "angle added at upper_norm", ftrain::at_least(0));
    keys.bind("lambda", own.lambda, "factor on the loss that draws norms up", ftrain::at_least(0));
    keys.bind("easy_margin", own.easy,
              "true: no margin beyond a right angle; false: none where the angle would pass pi");
    keys.expect(own.lower_norm < own.upper_norm, "upper_norm", "must be above lower_norm");
  }
  std::shared_ptr<const ftrain::Margin> margin() const override {
    return std::make_shared<ftrain::HostMargin<MagFaceMargin>>("magface", MagFaceMargin{own.easy},
                                                               *this);
  }
  std::unique_ptr<ftrain::HeadGraph> graph_half() const override {
    return std::make_unique<MagFaceGraph>(own);
  }
};

}  // namespace

FTRAIN_PLUGIN(magface, registry) {
  registry.add<ftrain::MarginHead, MagFace>("magface", "margin and loss from the feature's norm");
}
