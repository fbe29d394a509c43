// An optimizer's device functions against its formula on the host: many tensors in few launches,
// and rows.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "ftrain/model/device_functions.h"
#include "ftrain/optimizer/device_update.h"
#include "plugins/optimizers/adamw.h"
#include "plugins/optimizers/sgd.h"

namespace ftrain::cuda {
namespace {

using Floats = std::vector<float>;

class CudaUpdate : public testing::Test {
 protected:
  Floats drawn(std::int64_t count) {
    Floats made(static_cast<std::size_t>(count));
    for (float& x : made) x = std::uniform_real_distribution<float>(-1, 1)(random_);
    return made;
  }
  void step(float& weight, float& velocity, float gradient) const {
    formula_.prepare<float>({.rate = 0.2, .decay = 0.01, .coefficient = coefficient_})(
        weight, velocity, gradient);
  }
  static void expect_close(const Floats& got, const Floats& expected) {
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-6) << i;
  }

  const Sgd formula_{.momentum = 0.9f, .nesterov = true};
  const DeviceUpdate& table_ = *static_cast<const DeviceUpdate*>(device_update<Sgd>());
  float rate_ = 0.1f, ok_ = 1, coefficient_ = 0.5f;
  const DeviceUpdateScalars scalars_{
      .rate = &rate_, .ok = &ok_, .coefficient = &coefficient_, .rate_factor = 2, .decay = 0.01};

 private:
  std::mt19937 random_{1};
};

struct Tensors {
  std::vector<Floats> weights, velocities, gradients;
  std::vector<float*> slots;
  std::vector<DeviceTensor> device;
};

class CudaUpdateOfTensors : public CudaUpdate {
 protected:
  // More than a launch takes; one of several blocks, one empty.
  void SetUp() override {
    for (std::int64_t t = 0; t < 200; ++t) {
      const std::int64_t count = t == 3 ? 20000 : t == 5 ? 0 : t % 9 + 1;
      tensors_.weights.push_back(drawn(count));
      tensors_.velocities.push_back(drawn(count));
      tensors_.gradients.push_back(drawn(count));
    }
    for (Floats& velocity : tensors_.velocities) tensors_.slots.push_back(velocity.data());
    for (std::size_t t = 0; t < tensors_.weights.size(); ++t) {
      tensors_.device.push_back({.parameter = tensors_.weights[t].data(),
                                 .slots = &tensors_.slots[t],
                                 .gradient = tensors_.gradients[t].data(),
                                 .count = static_cast<std::int64_t>(tensors_.weights[t].size())});
    }
  }
  void update() {
    table_.dense(&formula_, tensors_.device.data(),
                 static_cast<std::int64_t>(tensors_.device.size()), scalars_, nullptr);
  }
  Tensors tensors_;
};

TEST_F(CudaUpdateOfTensors, IsTheFormulaForEveryElement) {
  std::vector<Floats> weights = tensors_.weights, velocities = tensors_.velocities;
  for (std::size_t t = 0; t < weights.size(); ++t) {
    for (std::size_t i = 0; i < weights[t].size(); ++i) {
      step(weights[t][i], velocities[t][i], tensors_.gradients[t][i]);
    }
  }
  update();
  for (std::size_t t = 0; t < weights.size(); ++t) {
    SCOPED_TRACE(t);
    expect_close(tensors_.weights[t], weights[t]);
    expect_close(tensors_.velocities[t], velocities[t]);
  }
}

// Every third tensor has one; some are bf16, some f16.
TEST_F(CudaUpdateOfTensors, WritesCopiesInTheSamePass) {
  std::vector<std::vector<std::uint16_t>> copies(tensors_.device.size());
  for (std::size_t t = 0; t < copies.size(); t += 3) {
    copies[t].resize(tensors_.weights[t].size(), 0x1234);
    tensors_.device[t].copy = copies[t].data();
    tensors_.device[t].copy_dtype = t % 2 == 0 ? DType::bf16 : DType::f16;
  }
  tensors_.weights[3][17] = 1e6f;  // is infinite in f16
  ok_ = 0;
  update();
  for (const auto& copy : copies) {
    for (const std::uint16_t element : copy) ASSERT_EQ(element, 0x1234);
  }
  ok_ = 1;
  update();
  for (std::size_t t = 0; t < copies.size(); t += 3) {
    SCOPED_TRACE(t);
    for (std::size_t i = 0; i < copies[t].size(); ++i) {
      const float weight = tensors_.weights[t][i];
      ASSERT_EQ(copies[t][i], t % 2 == 0 ? to_bf16(weight).bits : to_f16(weight).bits) << i;
    }
  }
  EXPECT_EQ(copies[3][17], to_f16(INFINITY).bits);
}

TEST_F(CudaUpdateOfTensors, ChangesNothingInABadStep) {
  const std::vector<Floats> weights = tensors_.weights, velocities = tensors_.velocities;
  ok_ = 0;
  update();
  EXPECT_EQ(tensors_.weights, weights);
  EXPECT_EQ(tensors_.velocities, velocities);
}

TEST_F(CudaUpdate, OfRowsLeavesTheOthers) {
  const std::vector<std::int32_t> listed{3, -1, 29, 0, 7, 8, 9, -1, 20, 12};
  const auto count = static_cast<std::int64_t>(listed.size());
  for (const std::int64_t width : {24, 7}) {
    for (const bool list : {true, false}) {
      for (const bool with_gradient : {true, false}) {
        SCOPED_TRACE(std::to_string(width) + (list ? " listed" : "") +
                     (with_gradient ? " with gradient" : ""));
        Floats weight = drawn(30 * width), velocity = drawn(30 * width);
        const Floats gradient = drawn(count * width);
        Floats expected = weight, expected_velocity = velocity;
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t row = list ? listed[static_cast<std::size_t>(i)] : 5 + i;
          for (std::int64_t k = 0; row >= 0 && k < width; ++k) {
            const auto at = static_cast<std::size_t>(row * width + k);
            step(expected[at], expected_velocity[at],
                 with_gradient ? gradient[static_cast<std::size_t>(i * width + k)] : 0.0f);
          }
        }
        void* const slot = velocity.data();
        table_.rows(&formula_, weight.data(), &slot, 1,
                    {.count = count,
                     .width = width,
                     .first = 5,
                     .rows = list ? listed.data() : nullptr,
                     .gradient = with_gradient ? gradient.data() : nullptr},
                    scalars_, nullptr);
        expect_close(weight, expected);
        expect_close(velocity, expected_velocity);
      }
    }
  }
}

class CudaAdamW : public CudaUpdate {
 protected:
  // On the host, of the update of that number.
  AdamW::Step<float> prepared(std::int64_t number) const {
    return formula_.prepare<float>(
        {.rate = 0.2, .decay = 0.01, .coefficient = coefficient_, .step = number});
  }
  DeviceUpdateScalars scalars() const {
    DeviceUpdateScalars made = scalars_;
    made.step = &before_;
    return made;
  }

  const AdamW formula_{0.9, 0.99, 1e-3};
  const DeviceUpdate& table_ = *static_cast<const DeviceUpdate*>(device_update<AdamW>());
  std::int64_t before_ = 0;
};

TEST_F(CudaAdamW, IsTheFormulaStepByStep) {
  const std::int64_t count = 9000;  // two blocks, the second cut
  Floats weight = drawn(count), mean(weight.size(), 0), square(weight.size(), 0);
  Floats want = weight, want_mean = mean, want_square = square;
  for (; before_ < 3; ++before_) {
    const Floats gradient = drawn(count);
    const auto step = prepared(before_ + 1);
    for (std::size_t i = 0; i < want.size(); ++i) {
      step(want[i], want_mean[i], want_square[i], gradient[i]);
    }
    float* const slots[] = {mean.data(), square.data()};
    const DeviceTensor tensor{weight.data(), slots, gradient.data(), count};
    table_.dense(&formula_, &tensor, 1, scalars(), nullptr);
    expect_close(weight, want);
    expect_close(mean, want_mean);
    expect_close(square, want_square);
  }
}

TEST_F(CudaAdamW, OfRowsGoesByTheStepOrByEachRowsOwnCount) {
  const std::vector<std::int32_t> listed{3, -1, 29, 0, 7, 8, 9, -1, 20, 12};
  const auto count = static_cast<std::int64_t>(listed.size());
  constexpr std::int64_t width = 24;
  before_ = 6;
  for (const bool counted : {false, true}) {
    for (const float ok : {1.0f, 0.0f}) {
      SCOPED_TRACE(std::string(counted ? "counted" : "by the step") + (ok == 0 ? ", skipped" : ""));
      ok_ = ok;
      Floats weight = drawn(30 * width), mean = drawn(30 * width), square = drawn(30 * width);
      for (float& x : square) x = std::abs(x);
      const Floats gradient = drawn(count * width);
      Floats steps(30), want = weight, want_mean = mean, want_square = square;
      for (std::size_t row = 0; row < steps.size(); ++row) steps[row] = static_cast<float>(row % 4);
      Floats want_steps = steps;
      for (std::size_t i = 0; i < listed.size() && ok != 0; ++i) {
        if (listed[i] < 0) continue;
        const auto row = static_cast<std::size_t>(listed[i]);
        const auto step =
            prepared(counted ? static_cast<std::int64_t>(want_steps[row] + 1) : before_ + 1);
        if (counted) want_steps[row] += 1;
        for (std::size_t k = 0; k < width; ++k) {
          const std::size_t at = row * width + k;
          step(want[at], want_mean[at], want_square[at], gradient[i * width + k]);
        }
      }
      void* const slots[] = {mean.data(), square.data()};
      table_.rows(&formula_, weight.data(), slots, 2,
                  {.count = count,
                   .width = width,
                   .rows = listed.data(),
                   .gradient = gradient.data(),
                   .row_steps = counted ? steps.data() : nullptr},
                  scalars(), nullptr);
      expect_close(weight, want);
      expect_close(mean, want_mean);
      expect_close(square, want_square);
      EXPECT_EQ(steps, want_steps);
    }
  }
}

}  // namespace
}  // namespace ftrain::cuda
