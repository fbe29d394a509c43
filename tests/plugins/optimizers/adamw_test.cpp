// AdamW against torch.optim.AdamW's rule written out, through the plugin.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

std::unique_ptr<Optimizer> make(const std::string& keys) {
  static Registry registry({FTRAIN_PLUGINS});
  return registry.create<Optimizer>(Job::parse("[optimizer]\nplugin = \"adamw\"\n" + keys));
}

// A parameter of three elements with its slots.
template <class T>
struct Tensor {
  std::vector<T> w{1, -2, 0.5}, m{0, 0, 0}, v{0, 0, 0};

  void update(const Update& rule, const std::vector<T>& gradient, const UpdateScalars& scalars) {
    T* slots[] = {m.data(), v.data()};
    rule.function<T>()(rule.functor, w.data(), slots, gradient.data(), 3, scalars);
  }
};

// Step by step as PyTorch's single-tensor loop has it.
struct Torch {
  double beta1, beta2, eps;
  std::vector<double> w{1, -2, 0.5}, m{0, 0, 0}, v{0, 0, 0};

  void update(const std::vector<double>& gradient, double rate, double decay, int step) {
    const double correction1 = 1 - std::pow(beta1, step), correction2 = 1 - std::pow(beta2, step);
    for (std::size_t i = 0; i < 3; ++i) {
      w[i] *= 1 - rate * decay;
      m[i] = beta1 * m[i] + (1 - beta1) * gradient[i];
      v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] * gradient[i];
      w[i] -= rate / correction1 * m[i] / (std::sqrt(v[i]) / std::sqrt(correction2) + eps);
    }
  }
};

template <class T>
void follows_the_rule(const std::string& keys, Torch torch, double tolerance) {
  SCOPED_TRACE(keys);
  const auto optimizer = make(keys);
  const auto update = optimizer->update();
  const double decay = 0.02, clip = 0.5;
  Tensor<T> tensor;
  for (int step = 1; step <= 20; ++step) {
    const double rate = 0.01 / step;
    std::vector<T> gradient(3);
    std::vector<double> clipped(3);
    for (std::size_t i = 0; i < 3; ++i) {
      gradient[i] = static_cast<T>(std::sin(step * 3.0 + static_cast<double>(i)));
      clipped[i] = clip * static_cast<double>(gradient[i]);
    }
    tensor.update(*update, gradient, {rate, decay, clip, step});
    torch.update(clipped, rate, decay, step);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(static_cast<double>(tensor.w[i]), torch.w[i], tolerance) << "step " << step;
      EXPECT_NEAR(static_cast<double>(tensor.m[i]), torch.m[i], tolerance) << "step " << step;
      EXPECT_NEAR(static_cast<double>(tensor.v[i]), torch.v[i], tolerance) << "step " << step;
    }
  }
}

TEST(AdamW, FollowsItsRule) {
  follows_the_rule<double>("", {0.9, 0.999, 1e-8}, 1e-14);
  follows_the_rule<float>("", {0.9, 0.999, 1e-8}, 1e-6);
  const std::string keys = "beta1 = 0.8\nbeta2 = 0.95\neps = 0.01";
  follows_the_rule<double>(keys, {0.8, 0.95, 0.01}, 1e-14);
  follows_the_rule<float>(keys, {0.8, 0.95, 0.01}, 1e-6);
  follows_the_rule<double>("beta1 = 0.0\nbeta2 = 0", {0, 0, 1e-8}, 1e-14);
}

TEST(AdamW, DecaysBesideTheMeans) {
  const auto update = make("")->update();
  Tensor<double> tensor, decayed;
  for (int step = 1; step <= 3; ++step) {
    const std::vector<double> gradient{0.3, -0.1, 0.2};
    tensor.update(*update, gradient, {0.1, 0, 1, step});
    decayed.update(*update, gradient, {0.1, 0.5, 1, step});
  }
  EXPECT_EQ(decayed.m, tensor.m);
  EXPECT_EQ(decayed.v, tensor.v);
  Tensor<double> resting;
  resting.update(*update, {0, 0, 0}, {0.1, 0.5, 1, 1});
  EXPECT_THAT(resting.w, testing::Pointwise(testing::DoubleEq(), {0.95, -1.9, 0.475}));
}

// However large the gradient, the first step is as long as the rate; that of a later number, with
// means from 0, is shorter or longer by the corrections.
TEST(AdamW, IsCorrectedByTheNumberOfTheUpdate) {
  const auto update = make("eps = 1e-30")->update();
  const auto length = [&](std::int64_t step) {
    Tensor<double> tensor;
    tensor.update(*update, {1e-6, 7, -1e6}, {0.1, 0, 1, step});
    return std::vector<double>{1 - tensor.w[0], -2 - tensor.w[1], tensor.w[2] - 0.5};
  };
  for (const double one : length(1)) EXPECT_NEAR(one, 0.1, 1e-9);
  for (const int step : {2, 10, 1000, 1000000}) {
    const double want =
        0.1 * (0.1 / (1 - std::pow(0.9, step))) / std::sqrt(0.001 / (1 - std::pow(0.999, step)));
    for (const double one : length(step)) EXPECT_NEAR(one, want, 1e-9) << step;
  }
}

TEST(AdamW, HasTheSlotsOfTorchAndTheDecayOfTheJob) {
  const auto optimizer = make("");
  EXPECT_EQ(optimizer->slots(), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(optimizer->weight_decay, 5e-4);
  EXPECT_EQ(make("weight_decay = 0.01")->weight_decay, 0.01);
}

TEST(AdamW, CountsRowsWhereTheJobSaysSo) {
  EXPECT_FALSE(make("")->counts_rows());
  EXPECT_FALSE(make("center_steps = \"global\"")->counts_rows());
  EXPECT_TRUE(make("center_steps = \"row\"")->counts_rows());
}

TEST(AdamW, RefusesSharesThatKeepEverything) {
  for (const char* key :
       {"beta1 = 1.0", "beta2 = 1", "beta2 = -0.1", "eps = 0.0", "center_steps = \"class\""}) {
    EXPECT_THROW(make(key), ConfigError) << key;
  }
}

}  // namespace
}  // namespace ftrain
