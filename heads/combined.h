// cos(m1 theta + m2) - m3: the combined margin, whose corners are ArcFace (m2) and CosFace (m3).
//
// Deng et al., "ArcFace" (2019), equation 4; Wang et al., "CosFace" (2018); Liu et al.,
// "SphereFace" (2017) for m1. All three margins are honoured together, as in oneflow_face and
// InsightFace's MXNet heads. Beyond m1 theta + m2 > pi the cosine simply turns: no easy margin.
//
// Kinks: the slope m1 sin(m1 theta + m2) / sin(theta) has poles at theta = 0 and, unless the
// numerator vanishes there too, at pi; sin(theta) is kept at or above 1e-6 so that it stays finite.
#pragma once

#include <cmath>

#include "ftrain/model/margin_head.h"

namespace ftrain {

struct Combined {
  float m1 = 1, m2 = 0, m3 = 0;

  static constexpr bool plain_others = true;
  static constexpr bool normalized = true;

  template <class T>
  FTRAIN_HD Dual<T> target(T cosine, const MarginRow<T>&) const {
    if (m1 == 1.0f && m2 == 0.0f) return {cosine - T(m3), T(1)};
    const T theta = std::acos(cosine);
    const T sine = std::sqrt((T(1) - cosine) * (T(1) + cosine));
    const T moved = T(m1) * theta + T(m2);
    const T floor = T(1e-6);
    return {std::cos(moved) - T(m3), T(m1) * std::sin(moved) / (sine > floor ? sine : floor)};
  }
  template <class T>
  FTRAIN_HD Dual<T> other(T cosine, const MarginRow<T>&) const {
    return {cosine, T(1)};
  }
};

}  // namespace ftrain
