// Makes a Margin for the host out of a head's functor.
//
// A functor is a small trivially copyable struct:
//   template <class T> FTRAIN_HD Dual<T> target(T cosine, const MarginRow<T>& row) const;
//   template <class T> FTRAIN_HD Dual<T> other(T cosine, const MarginRow<T>& row) const;
//   static constexpr bool plain_others = true;   // other() is the identity: devices skip it
//   static constexpr bool normalized = true;     // features and class centers are normalised
// Scale, clamping, the filter and the choice of gradient are the driver's, the same for every head.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>

#include "core/model/margin_head.h"

namespace ftrain {

template <class Functor>
class HostMargin final : public Margin {
  static_assert(std::is_trivially_copyable_v<Functor>);

 public:
  HostMargin(std::string name, Functor formula, const MarginHead& head)
      : name_(std::move(name)),
        settings_{formula, head.scale, head.filter.value_or(2),
                  head.gradient == "straight_through"} {
    normalized = Functor::normalized;
    scale = head.scale;
    functor = &settings_;
    f32.target = target<float>;
    f64.target = target<double>;
    if (!Functor::plain_others || head.filter) {
      f32.others = others<float>;
      f64.others = others<double>;
    }
  }

  std::string text() const override { return name_; }

 private:
  struct Settings {
    Functor formula;
    double scale;
    double filter;  // above every cosine when there is none
    bool straight_through;
  };

  // A clamped cosine has no slope beyond the ends, as torch's clamp.
  template <class T>
  static bool clamp(T& cosine) {
    if (!Functor::normalized) return true;
    const bool inside = cosine >= T(-1) && cosine <= T(1);
    cosine = std::clamp(cosine, T(-1), T(1));
    return inside;
  }

  template <class T>
  static Dual<T> target(const void* pointer, const MarginRow<T>& row) {
    const auto& s = *static_cast<const Settings*>(pointer);
    T cosine = row.target;
    const bool inside = clamp(cosine);
    const Dual<T> made = s.formula.target(cosine, row);
    const T slope = s.straight_through ? T(1) : made.slope;
    return {T(s.scale) * made.value, inside ? T(s.scale) * slope : T(0)};
  }

  template <class T>
  static void others(const void* pointer, const MarginTile<T>& tile) {
    const auto& s = *static_cast<const Settings*>(pointer);
    const T factor = T(s.scale), filter = T(s.filter);
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      T* const cosines = tile.cosines + r * tile.stride;
      T* const slopes = tile.slopes ? tile.slopes + r * tile.stride : nullptr;
      for (std::int64_t c = 0; c < tile.columns; ++c) {
        T cosine = cosines[c];
        const bool inside = clamp(cosine);
        if (cosine > filter) {
          cosines[c] = T(0);
          if (slopes) slopes[c] = T(0);
          continue;
        }
        const Dual<T> made = s.formula.other(cosine, tile.row[r]);
        cosines[c] = factor * made.value;
        if (slopes) slopes[c] = inside ? factor * (s.straight_through ? T(1) : made.slope) : T(0);
      }
    }
  }

  std::string name_;
  Settings settings_;
};

}  // namespace ftrain
