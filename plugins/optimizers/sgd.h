// Stochastic gradient descent with momentum, as torch.optim.SGD with dampening 0:
//   g <- coefficient * gradient + decay * w;  v <- momentum * v + g
//   w <- w - rate * (nesterov ? g + momentum * v : v)
#pragma once

#include "ftrain/plugin/api.h"

namespace ftrain {

struct Sgd {
  static constexpr int slots = 1;

  float momentum = 0.9f;
  bool nesterov = false;

  template <class T>
  FTRAIN_HD void step(T& weight, T& velocity, T gradient, T rate, T decay, T coefficient) const {
    const T g = coefficient * gradient + decay * weight;
    velocity = T(momentum) * velocity + g;
    weight -= rate * (nesterov ? g + T(momentum) * velocity : velocity);
  }
};

// The same with momentum 0, where no velocity need be kept: one tensor less for each parameter.
struct PlainSgd {
  static constexpr int slots = 0;

  template <class T>
  FTRAIN_HD void step(T& weight, T gradient, T rate, T decay, T coefficient) const {
    weight -= rate * (coefficient * gradient + decay * weight);
  }
};

}  // namespace ftrain
