#include "plugins/optimizers/sgd.h"

#include "ftrain/optimizer.h"

namespace {

struct SgdOptimizer final : ftrain::Optimizer {
  double momentum = 0.9;
  bool nesterov = false;

  void configure(ftrain::Keys& keys) override {
    Optimizer::configure(keys);
    keys.bind("momentum", momentum,
              "share of the velocity kept from step to step; 0: no velocity is stored",
              ftrain::between(0, 1));
    keys.bind("nesterov", nesterov, "look ahead along the velocity");
  }
  std::vector<std::string> slots() const override {
    return momentum == 0 ? std::vector<std::string>() : std::vector<std::string>{"momentum"};
  }
  std::shared_ptr<const ftrain::Update> update() const override {
    using namespace ftrain;
    if (momentum == 0) return std::make_shared<HostUpdate<PlainSgd>>("sgd", PlainSgd());
    return std::make_shared<HostUpdate<Sgd>>("sgd", Sgd{static_cast<float>(momentum), nesterov});
  }
};

}  // namespace

FTRAIN_PLUGIN(sgd, registry) {
  registry.add<ftrain::Optimizer, SgdOptimizer>("sgd", "gradient descent with momentum");
}
