// Stochastic gradient descent with momentum, as torch.optim.SGD with dampening 0:
//   g <- coefficient * gradient + decay * w;  v <- momentum * v + g
//   w <- w - rate * (nesterov ? g + momentum * v : v)
#pragma once

#include "ftrain/optimizer/update_formula.h"

namespace ftrain {

struct Sgd {
  static constexpr int slots = 1;

  float momentum = 0.9f;
  bool nesterov = false;

  template <class T>
  struct Step {
    T rate, decay, coefficient, momentum;
    bool nesterov;

    FTRAIN_HD void operator()(T& weight, T& velocity, T gradient) const {
      const T g = coefficient * gradient + decay * weight;
      velocity = momentum * velocity + g;
      weight -= rate * (nesterov ? g + momentum * velocity : velocity);
    }
  };
  template <class T>
  FTRAIN_HD Step<T> prepare(const UpdateScalars& s) const {
    return {T(s.rate), T(s.decay), T(s.coefficient), T(momentum), nesterov};
  }
};

// The same with momentum 0, where no velocity need be kept: one tensor less for each parameter.
struct PlainSgd {
  static constexpr int slots = 0;

  template <class T>
  struct Step {
    T rate, decay, coefficient;

    FTRAIN_HD void operator()(T& weight, T gradient) const {
      weight -= rate * (coefficient * gradient + decay * weight);
    }
  };
  template <class T>
  FTRAIN_HD Step<T> prepare(const UpdateScalars& s) const {
    return {T(s.rate), T(s.decay), T(s.coefficient)};
  }
};

}  // namespace ftrain
