#include "plugins/optimizers/adamw.h"

#include "ftrain/optimizer.h"

namespace {

// A beta of 1 would never take a gradient in, and has no correction.
ftrain::Rule share() {
  return {"at least 0 and below 1",
          [](const ftrain::Setting& setting) {
            const auto* whole = std::get_if<std::int64_t>(&setting);
            if (whole != nullptr) return *whole == 0;
            const auto* number = std::get_if<double>(&setting);
            return number != nullptr && *number >= 0 && *number < 1;
          },
          {}};
}

struct AdamWOptimizer final : ftrain::Optimizer {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  std::string center_steps = "global";

  void configure(ftrain::Keys& keys) override {
    Optimizer::configure(keys);
    keys.bind("beta1", beta1, "share of the gradients' mean kept from step to step", share());
    keys.bind("beta2", beta2, "share of the squared gradients' mean kept from step to step",
              share());
    keys.bind("eps", eps, "added to the root of the squared gradients' mean", ftrain::above(0));
    keys.bind("center_steps", center_steps,
              "the number that corrects the means of a class center. global: the step's "
              "(arcface_torch); row: how often that class center was updated",
              ftrain::one_of(std::vector<std::string>{"global", "row"}));
  }
  std::vector<std::string> slots() const override { return {"exp_avg", "exp_avg_sq"}; }
  bool counts_rows() const override { return center_steps == "row"; }
  std::shared_ptr<const ftrain::Update> update() const override {
    return std::make_shared<ftrain::HostUpdate<ftrain::AdamW>>("adamw",
                                                               ftrain::AdamW(beta1, beta2, eps));
  }
};

}  // namespace

FTRAIN_PLUGIN(adamw, registry) {
  registry.add<ftrain::Optimizer, AdamWOptimizer>("adamw", "Adam with decoupled decay");
}
