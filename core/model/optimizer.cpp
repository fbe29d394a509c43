#include "ftrain/model/optimizer.h"

namespace ftrain {

Optimizer::~Optimizer() = default;

void Optimizer::configure(Keys& keys) {
  keys.bind("rate", rate, "learning rate before the schedule's factor", above(0));
  keys.bind("weight_decay", weight_decay, "factor of the decay towards 0", at_least(0));
  keys.bind("clip", clip, "largest global norm of the backbone's gradient; absent: no clipping",
            above(0));
  keys.bind("no_decay", no_decay,
            "parameters without decay: 'vectors' (batch norms, PReLU slopes, biases) or parts of "
            "their names");
  keys.bind("center_rate_factor", center_rate_factor, "factor on the class centers' rate",
            at_least(0));
  keys.bind("center_decay_factor", center_decay_factor, "factor on the class centers' decay",
            at_least(0));
}

TensorPolicy Optimizer::policy(const std::string& parameter, std::size_t rank) const {
  TensorPolicy policy{1, weight_decay};
  for (const std::string& part : no_decay) {
    const bool excluded = part == "vectors" ? rank == 1 : parameter.find(part) != std::string::npos;
    if (excluded) policy.decay = 0;
  }
  return policy;
}

TensorPolicy Optimizer::center_policy() const {
  return {center_rate_factor, weight_decay * center_decay_factor};
}

}  // namespace ftrain
