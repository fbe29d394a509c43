// Rows of class centers and their slots as they are stored, f32 (f64) or bf16, and their update.
//
// Arithmetic is in the features' type: a row of bf16 is widened, updated, and rounded
// stochastically by numbers of the global row, so that neither ranks nor threads change the curve.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ftrain/base/dtype.h"
#include "ftrain/graph/graph.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/ops/random.h"
#include "plugins/devices/cpu/class_center/operands.h"

namespace ftrain::cpu {

inline void widen(const BF16* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_f32(from[i]);
}

// A row [width] of global number `global`, see RowRounding for `key`.
inline void round_row(const float* from, std::uint64_t key, std::int64_t step, std::int64_t global,
                      std::int64_t width, BF16* to) {
  for (std::int64_t d = 0; d < width; d += RowRounding::each) {
    const RowRounding rounding = RowRounding::at(key, step, global, width, d);
    const std::int64_t end = std::min<std::int64_t>(d + RowRounding::each, width);
    for (std::int64_t i = d; i < end; ++i) to[i] = {bf16_bits(from[i], rounding.number(i))};
  }
}

// Row `r` of a weight [.., width] that is stored in T, or in bf16 and then widened into `space`.
template <class T>
const T* stored_row(const void* weight, bool bf16, std::int64_t r, std::int64_t width, T* space) {
  if constexpr (std::is_same_v<T, float>) {
    if (bf16) {
      widen(static_cast<const BF16*>(weight) + r * width, width, space);
      return space;
    }
  }
  return static_cast<const T*>(weight) + r * width;
}

// The number of an update of row `row`, by the count of its earlier ones, which goes up.
inline std::int64_t count_update(float* row_steps, std::int64_t row) {
  return static_cast<std::int64_t>(++row_steps[row]);
}

// The row update of a class_center_update node on weight and slots in bf16. Threads: each has its
// own `space`.
class Bf16RowUpdate {
 public:
  explicit Bf16RowUpdate(const Node& node)
      : width_(node.input(backward_input::weight).shape[1]),
        first_class_(node.attributes.integer("first_class")),
        slots_(node.inputs.size() - backward_input::first_slot) {
    const std::uint64_t seed =
        mix64(static_cast<std::uint64_t>(node.attributes.integer("seed")), rounding_purpose);
    for (std::size_t t = 0; t <= slots_; ++t) keys_.push_back(mix64(seed, t));
  }
  // Floats of `space`.
  std::int64_t space() const { return static_cast<std::int64_t>(slots_ + 1) * width_; }

  void operator()(const std::vector<void*>& inputs, std::int64_t row, const float* gradient,
                  const Update& update, const UpdateScalars& scalars, float* space) const {
    const std::int64_t step = *static_cast<const std::int64_t*>(inputs[backward_input::step]);
    float* slots[8];
    each_tensor(inputs, [&](std::size_t t, BF16* tensor) {
      float* const wide = space + static_cast<std::int64_t>(t) * width_;
      widen(tensor + row * width_, width_, wide);
      if (t > 0) slots[t - 1] = wide;
    });
    update.f32(update.functor, space, slots, gradient, width_, scalars);
    each_tensor(inputs, [&](std::size_t t, BF16* tensor) {
      round_row(space + static_cast<std::int64_t>(t) * width_, keys_[t], step, first_class_ + row,
                width_, tensor + row * width_);
    });
  }

 private:
  template <class F>
  void each_tensor(const std::vector<void*>& inputs, const F& f) const {
    f(0, static_cast<BF16*>(inputs[backward_input::weight]));
    for (std::size_t t = 1; t <= slots_; ++t) {
      f(t, static_cast<BF16*>(inputs[backward_input::first_slot + t - 1]));
    }
  }

  std::int64_t width_, first_class_;
  std::size_t slots_;
  std::vector<std::uint64_t> keys_;  // by tensor
};

}  // namespace ftrain::cpu
