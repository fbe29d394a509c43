// A head's functor with what is the same for every head around it: scale, clamping, the filter and
// the choice of gradient. One text for host and device.
//
// A functor is a small trivially copyable struct:
//   template <class T> FTRAIN_HD Dual<T> target(T cosine, const MarginRow<T>& row) const;
//   template <class T> FTRAIN_HD Dual<T> other(T cosine, const MarginRow<T>& row) const;
//   static constexpr bool plain_others = true;   // other() is the identity: devices skip it
//   static constexpr bool normalized = true;     // features and class centers are normalised
// and, where the loss reaches features through the terms of the head's graph half,
//   // d target / d term of the terms it has; the rest are 0 already
//   template <class T>
//   FTRAIN_HD void target_term_slopes(T cosine, const MarginRow<T>& row, T* slopes) const;
#pragma once

#include <limits>
#include <type_traits>

#include "ftrain/model/margin_head.h"

namespace ftrain {

template <class Functor>
inline constexpr bool has_term_slopes = requires(const Functor& functor,
                                                 const MarginRow<float>& row, float* slopes) {
  functor.target_term_slopes(0.0f, row, slopes);
};

template <class Functor, class T>
struct MarginFormula {
  Functor functor;
  T scale;
  T filter;  // above every cosine when there is none
  bool straight_through;

  FTRAIN_HD Dual<T> target(const MarginRow<T>& row) const {
    T cosine = row.target;
    const bool inside = clamp(cosine);
    const Dual<T> made = functor.target(cosine, row);
    return {scale * made.value, inside ? scale * (straight_through ? T(1) : made.slope) : T(0)};
  }
  FTRAIN_HD Dual<T> other(T cosine, const MarginRow<T>& row) const {
    const bool inside = clamp(cosine);
    if (cosine > filter) return {T(0), T(0)};
    const Dual<T> made = functor.other(cosine, row);
    return {scale * made.value, inside ? scale * (straight_through ? T(1) : made.slope) : T(0)};
  }
  // Slopes of the target's logit to all terms. Exact, whatever the choice of gradient.
  FTRAIN_HD void target_term_slopes(const MarginRow<T>& row, T* slopes) const {
    for (int i = 0; i < most_margin_terms; ++i) slopes[i] = T(0);
    if constexpr (has_term_slopes<Functor>) {
      T cosine = row.target;
      clamp(cosine);
      functor.target_term_slopes(cosine, row, slopes);
      for (int i = 0; i < most_margin_terms; ++i) slopes[i] *= scale;
    }
  }

 private:
  // A clamped cosine has no slope beyond the ends, as torch's clamp. NaN stays NaN.
  static FTRAIN_HD bool clamp(T& cosine) {
    if (!Functor::normalized) return true;
    const bool inside = cosine >= T(-1) && cosine <= T(1);
    if (cosine < T(-1)) cosine = T(-1);
    if (cosine > T(1)) cosine = T(1);
    return inside;
  }
};

// What Margin::functor points to: a functor and its head's keys.
template <class Functor>
struct MarginSettings {
  static_assert(std::is_trivially_copyable_v<Functor>);

  MarginSettings(Functor formula, const MarginHead& head)
      : functor(formula),
        scale(head.scale),
        filter(head.filter.value_or(std::numeric_limits<double>::infinity())),
        straight_through(head.gradient == "straight_through") {}

  template <class T>
  MarginFormula<Functor, T> formula() const {
    return {functor, static_cast<T>(scale), static_cast<T>(filter), straight_through};
  }

  Functor functor;
  double scale, filter;
  bool straight_through;
};

// The functor's DeviceMargin. Defined in ftrain/head/margin_cuda.cuh, instantiated by the head's
// .cu.
template <class Functor>
const void* device_margin();

}  // namespace ftrain
