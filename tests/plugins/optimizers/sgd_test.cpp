// Gradient descent against torch.optim.SGD's rule written out, through the plugin.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

std::unique_ptr<Optimizer> make(const std::string& keys) {
  static Registry registry({FTRAIN_PLUGINS});
  return registry.create<Optimizer>(Job::parse("[optimizer]\nplugin = \"sgd\"\n" + keys));
}

template <class T>
void follows_the_rule(double momentum, bool nesterov, double tolerance) {
  const auto optimizer = make("momentum = " + std::to_string(momentum) +
                              "\nnesterov = " + (nesterov ? "true" : "false"));
  const std::vector<std::string> slots_kept{"momentum"};
  ASSERT_EQ(optimizer->slots(), momentum == 0 ? std::vector<std::string>() : slots_kept);
  const auto update = optimizer->update();
  const double decay = 0.01, clip = 0.5;
  std::vector<T> w{1, -2, 0.5}, v{0, 0, 0};
  std::vector<double> want_w(w.begin(), w.end()), want_v(3, 0.0);
  for (int step = 0; step < 5; ++step) {
    const double rate = 0.1 / (step + 1);
    std::vector<T> g(3);
    for (std::size_t i = 0; i < 3; ++i) {
      g[i] = static_cast<T>(std::sin(step * 3.0 + static_cast<double>(i)));
    }
    T* slots[] = {v.data()};
    update->function<T>()(update->functor, w.data(), slots, g.data(), 3, {rate, decay, clip});
    for (std::size_t i = 0; i < 3; ++i) {
      const double d = clip * static_cast<double>(g[i]) + decay * want_w[i];
      want_v[i] = static_cast<double>(static_cast<float>(momentum)) * want_v[i] + d;
      const double along =
          nesterov ? d + static_cast<double>(static_cast<float>(momentum)) * want_v[i] : want_v[i];
      want_w[i] -= rate * along;
      EXPECT_NEAR(static_cast<double>(w[i]), want_w[i], tolerance);
      if (momentum != 0) {
        EXPECT_NEAR(static_cast<double>(v[i]), want_v[i], tolerance);
      }
    }
  }
}

TEST(Sgd, FollowsItsRule) {
  for (const bool nesterov : {false, true}) {
    follows_the_rule<double>(0.9, nesterov, 1e-14);
    follows_the_rule<float>(0.9, nesterov, 1e-6);
    follows_the_rule<double>(0, nesterov, 1e-14);
  }
}

TEST(Sgd, RefusesAMomentumAboveOne) {
  EXPECT_THROW(make("momentum = 1.5"), ConfigError);
}

}  // namespace
}  // namespace ftrain
