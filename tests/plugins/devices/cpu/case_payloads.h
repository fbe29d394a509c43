// A margin and an optimizer's update for op tests: simple, and smooth where a gradient looks.
#pragma once

#include <cstdint>
#include <string>

#include "ftrain/model/margin_head.h"
#include "ftrain/model/optimizer.h"

namespace ftrain::cpu {

// What the payloads below have for a CUDA device: put here by its tests, before a graph is made.
struct OnDevice {
  const void* functor = nullptr;
  const void* cuda = nullptr;
};
inline OnDevice momentum_on_device;
inline OnDevice margin_on_device[2][2];  // [plain_others][normal]

// What makes an update another one by its number: 1 the first time.
FTRAIN_HD inline double divisor_of_step(std::int64_t step) {
  return static_cast<double>(1 + (step - 1) % 4);
}

// v <- 0.9 v + (coefficient g + decay p); p <- p - rate / divisor_of_step v
class MomentumUpdate : public Update {
 public:
  MomentumUpdate() {
    f32 = step<float>;
    f64 = step<double>;
    functor = momentum_on_device.functor;
    cuda = momentum_on_device.cuda;
  }
  std::string text() const override { return "momentum"; }

 private:
  template <class T>
  static void step(const void*, T* parameter, T* const* slots, const T* gradient,
                   std::int64_t count, const UpdateScalars& s) {
    const T rate = T(s.rate / divisor_of_step(s.step));
    for (std::int64_t i = 0; i < count; ++i) {
      const T g = T(s.coefficient) * gradient[i] + T(s.decay) * parameter[i];
      slots[0][i] = T(0.9) * slots[0][i] + g;
      parameter[i] -= rate * slots[0][i];
    }
  }
};

// Target: 8 (cos - 0.2 - the product of the first two terms); others: 8 cos, or 8 (cos + cos^2 / 4)
// where they are not plain.
class TestMargin : public Margin {
 public:
  TestMargin(bool plain_others, bool normal) {
    normalized = normal;
    scale = 8;
    f32.target = target<float>;
    f64.target = target<double>;
    f32.target_term_slopes = target_term_slopes<float>;
    f64.target_term_slopes = target_term_slopes<double>;
    functor = margin_on_device[plain_others][normal].functor;
    cuda = margin_on_device[plain_others][normal].cuda;
    if (plain_others) return;
    f32.others = others<float>;
    f64.others = others<double>;
  }
  std::string text() const override { return "test margin"; }

 private:
  template <class T>
  static Dual<T> target(const void*, const MarginRow<T>& row) {
    return {T(8) * (row.target - T(0.2) - row.term[0] * row.term[1]), T(8)};
  }
  template <class T>
  static void target_term_slopes(const void*, const MarginRow<T>& row, T* slopes) {
    slopes[0] = T(-8) * row.term[1];
    slopes[1] = T(-8) * row.term[0];
    slopes[2] = slopes[3] = 0;
  }
  template <class T>
  static void others(const void*, const MarginTile<T>& tile) {
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      for (std::int64_t c = 0; c < tile.columns; ++c) {
        T& cosine = tile.cosines[r * tile.stride + c];
        if (tile.slopes) tile.slopes[r * tile.stride + c] = T(8) * (1 + cosine / 2);
        cosine = T(8) * (cosine + cosine * cosine / 4);
      }
    }
  }
};

}  // namespace ftrain::cpu
