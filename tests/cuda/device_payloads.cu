#include "tests/cuda/device_payloads.h"

#include <memory>

#include "ftrain/head/margin_cuda.cuh"
#include "ftrain/optimizer/update_cuda.cuh"
#include "tests/plugins/devices/cpu/case_payloads.h"

namespace ftrain::cuda {
namespace {

struct MomentumFormula {
  static constexpr int slots = 1;
  template <class T>
  struct Step {
    T rate, decay, coefficient;
    FTRAIN_HD void operator()(T& weight, T& velocity, T gradient) const {
      velocity = T(0.9) * velocity + (coefficient * gradient + decay * weight);
      weight -= rate * velocity;
    }
  };
  template <class T>
  FTRAIN_HD Step<T> prepare(const UpdateScalars& s) const {
    return {T(s.rate / cpu::divisor_of_step(s.step)), T(s.decay), T(s.coefficient)};
  }
};

template <bool plain, bool normal>
struct TestFormula {
  static constexpr bool plain_others = plain;
  static constexpr bool normalized = normal;
  template <class T>
  FTRAIN_HD Dual<T> target(T cosine, const MarginRow<T>& row) const {
    return {cosine - T(0.2) - row.term[0] * row.term[1], T(1)};
  }
  template <class T>
  FTRAIN_HD void target_term_slopes(T, const MarginRow<T>& row, T* slopes) const {
    slopes[0] = -row.term[1];
    slopes[1] = -row.term[0];
  }
  template <class T>
  FTRAIN_HD Dual<T> other(T cosine, const MarginRow<T>&) const {
    if (plain_others) return {cosine, T(1)};
    return {cosine + cosine * cosine / 4, 1 + cosine / 2};
  }
};

class ScaledByEight final : public MarginHead {
 public:
  ScaledByEight() { scale = 8; }
  std::shared_ptr<const Margin> margin() const override { return nullptr; }
};

template <bool plain, bool normal>
cpu::OnDevice margin() {
  using Formula = TestFormula<plain, normal>;
  static const MarginSettings<Formula> settings(Formula{}, ScaledByEight());
  return {&settings, device_margin<Formula>()};
}

}  // namespace

void put_payloads_on_device() {
  static const MomentumFormula momentum;
  cpu::momentum_on_device = {&momentum, device_update<MomentumFormula>()};
  cpu::margin_on_device[0][0] = margin<false, false>();
  cpu::margin_on_device[0][1] = margin<false, true>();
  cpu::margin_on_device[1][0] = margin<true, false>();
  cpu::margin_on_device[1][1] = margin<true, true>();
}

}  // namespace ftrain::cuda
