#include "plugins/optimizers/sgd.h"

#include "ftrain/model/optimizer.h"
#include "ftrain/optimizer/device_update.h"
#include "ftrain/plugin.h"

namespace {

using ftrain::UpdateScalars;

// One loop, compiled for each instruction set and chosen as the library is loaded. Every element is
// rounded alike by all of them, since contraction is off. Sanitizers do not take such functions.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define FTRAIN_EVERY_ISA [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define FTRAIN_EVERY_ISA
#endif

template <class Formula>
class SgdUpdate final : public ftrain::Update {
 public:
  explicit SgdUpdate(Formula formula) : formula_(formula) {
    functor = &formula_;
    f32 = run<float>;
    f64 = run<double>;
#ifdef FTRAIN_CUDA
    cuda = ftrain::device_update<Formula>();
#endif
  }
  std::string text() const override {
    return "sgd";
  }

 private:
  template <class T>
  FTRAIN_EVERY_ISA static void run(const void* functor, T* parameter, T* const* slots,
                                   const T* gradient, std::int64_t count, const UpdateScalars& s) {
    const Formula formula = *static_cast<const Formula*>(functor);
    const T rate = T(s.rate), decay = T(s.decay), coefficient = T(s.coefficient);
    if constexpr (Formula::slots == 0) {
      for (std::int64_t i = 0; i < count; ++i) {
        formula.step(parameter[i], gradient[i], rate, decay, coefficient);
      }
    } else {
      T* const velocity = slots[0];
      for (std::int64_t i = 0; i < count; ++i) {
        formula.step(parameter[i], velocity[i], gradient[i], rate, decay, coefficient);
      }
    }
  }

  Formula formula_;
};

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
    if (momentum == 0) return std::make_shared<SgdUpdate<PlainSgd>>(PlainSgd());
    return std::make_shared<SgdUpdate<Sgd>>(Sgd{static_cast<float>(momentum), nesterov});
  }
};

}  // namespace

FTRAIN_PLUGIN(sgd, registry) {
  registry.add<ftrain::Optimizer, SgdOptimizer>("sgd", "gradient descent with momentum");
}
