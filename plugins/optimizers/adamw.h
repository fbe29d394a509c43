// Adam with decoupled decay (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019),
// as torch.optim.AdamW: with g the gradient times the coefficient and t the update's number,
//   w <- (1 - rate * decay) w
//   m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
//   w <- w - rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
#pragma once

#include <cmath>

#include "ftrain/optimizer/update_formula.h"

namespace ftrain {

class AdamW {
 public:
  static constexpr int slots = 2;

  AdamW(double beta1, double beta2, double eps)
      : beta1_(beta1),
        beta2_(beta2),
        eps_(eps),
        log_beta1_(std::log(beta1)),
        log_beta2_(std::log(beta2)) {}

  template <class T>
  struct Step {
    T coefficient, kept, beta1, rest1, beta2, rest2;
    T length, scale, eps;  // of the step along the mean; on the root of the mean square

    FTRAIN_HD void operator()(T& weight, T& mean, T& square, T gradient) const {
      const T g = coefficient * gradient;
      mean = beta1 * mean + rest1 * g;
      square = beta2 * square + rest2 * g * g;
      weight = kept * weight - length * mean / (scale * std::sqrt(square) + eps);
    }
  };
  template <class T>
  FTRAIN_HD Step<T> prepare(const UpdateScalars& s) const {
    const auto t = static_cast<double>(s.step);
    return {T(s.coefficient),
            T(1 - s.rate * s.decay),
            T(beta1_),
            T(1 - beta1_),
            T(beta2_),
            T(1 - beta2_),
            T(s.rate) / corrected(T(t * log_beta1_)),
            T(1) / std::sqrt(corrected(T(t * log_beta2_))),
            T(eps_)};
  }

 private:
  // 1 - beta^t of t log(beta): a beta of 0 gives 1.
  template <class T>
  FTRAIN_HD static T corrected(T power) {
    return -std::expm1(power);
  }

  double beta1_, beta2_, eps_, log_beta1_, log_beta2_;
};

}  // namespace ftrain
