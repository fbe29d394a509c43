// Makes a Margin out of a head's functor (see ftrain/head/margin_formula.h): the host's functions,
// and the table of the device's where the plugin has a .cu (CMake's FTRAIN_CUDA).
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "ftrain/head/margin_formula.h"

namespace ftrain {

template <class Functor>
class HostMargin final : public Margin {
 public:
  HostMargin(std::string name, Functor formula, const MarginHead& head)
      : name_(std::move(name)), settings_(formula, head) {
    normalized = Functor::normalized;
    scale = head.scale;
    functor = &settings_;
    f32.target = target<float>;
    f64.target = target<double>;
    if (!Functor::plain_others || head.filter) {
      f32.others = others<float>;
      f64.others = others<double>;
    }
    if (has_term_slopes<Functor>) {
      f32.target_term_slopes = target_term_slopes<float>;
      f64.target_term_slopes = target_term_slopes<double>;
    }
#ifdef FTRAIN_CUDA
    cuda = device_margin<Functor>();
#endif
  }

  std::string text() const override {
    return name_;
  }

 private:
  template <class T>
  static MarginFormula<Functor, T> formula(const void* settings) {
    return static_cast<const MarginSettings<Functor>*>(settings)->template formula<T>();
  }

  template <class T>
  static Dual<T> target(const void* settings, const MarginRow<T>& row) {
    return formula<T>(settings).target(row);
  }

  template <class T>
  static void target_term_slopes(const void* settings, const MarginRow<T>& row, T* slopes) {
    formula<T>(settings).target_term_slopes(row, slopes);
  }

  template <class T>
  static void others(const void* settings, const MarginTile<T>& tile) {
    const MarginFormula<Functor, T> of = formula<T>(settings);
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      T* const cosines = tile.cosines + r * tile.stride;
      T* const slopes = tile.slopes ? tile.slopes + r * tile.stride : nullptr;
      for (std::int64_t c = 0; c < tile.columns; ++c) {
        const Dual<T> made = of.other(cosines[c], tile.row[r]);
        cosines[c] = made.value;
        if (slopes) slopes[c] = made.slope;
      }
    }
  }

  std::string name_;
  MarginSettings<Functor> settings_;
};

}  // namespace ftrain
