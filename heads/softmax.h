// Plain softmax over raw products, and over cosines: no margin.
#pragma once

#include "ftrain/model/margin_head.h"

namespace ftrain {

template <bool normalize>
struct Softmax {
  static constexpr bool plain_others = true;
  static constexpr bool normalized = normalize;

  template <class T>
  FTRAIN_HD Dual<T> target(T cosine, const MarginRow<T>&) const {
    return {cosine, T(1)};
  }
  template <class T>
  FTRAIN_HD Dual<T> other(T cosine, const MarginRow<T>&) const {
    return {cosine, T(1)};
  }
};

}  // namespace ftrain
