// Every op's gradient against central differences, in double, by plain kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cpu {
namespace {

class Differences {
 public:
  Differences(const BuiltCase& built, double step)
      : built_(built), step_(step), interpreter_(built.leaves.graph) {
    built.leaves.fill(interpreter_);
  }

  // The loss's slope when `value` moves along `direction`.
  double along(Value value, const std::vector<double>& direction) {
    const std::span<double> x = interpreter_.data<double>(value);
    const std::vector<double> home(x.begin(), x.end());
    const auto loss_at = [&](double distance) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = home[i] + distance * direction[i];
      interpreter_.run(built_.forward_end);
      return interpreter_.data<double>(built_.loss)[0];
    };
    const double slope = (loss_at(step_) - loss_at(-step_)) / (2 * step_);
    std::copy(home.begin(), home.end(), x.begin());
    return slope;
  }

 private:
  const BuiltCase& built_;
  double step_;
  Interpreter interpreter_;
};

class OpGradients : public testing::TestWithParam<OpCase> {};

TEST_P(OpGradients, AgreeWithFiniteDifferences) {
  const OpCase& row = GetParam();
  const BuiltCase built(row, DType::f64);
  Interpreter whole(built.leaves.graph);
  built.leaves.fill(whole);
  whole.run();
  Differences differences(built, row.difference);
  std::mt19937 random(7);

  for (std::size_t leaf = 0; leaf < built.leaves.differentiable.size(); ++leaf) {
    const Value x = built.leaves.differentiable[leaf];
    ASSERT_TRUE(built.gradients[leaf].valid()) << "leaf " << leaf << " has no gradient";
    ASSERT_EQ(built.gradients[leaf].type(), x.type());
    const std::span<const double> gradient = whole.data<double>(built.gradients[leaf]);
    double largest = 1e-3;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));

    // Some elements one by one, and directions through all of them.
    std::vector<double> direction(gradient.size(), 0.0);
    const std::size_t picks = std::min<std::size_t>(gradient.size(), 12);
    for (std::size_t pick = 0; pick < picks; ++pick) {
      const std::size_t i = pick * gradient.size() / picks;
      direction[i] = 1;
      EXPECT_NEAR(differences.along(x, direction), gradient[i], row.closeness * largest)
          << "leaf " << leaf << " element " << i;
      direction[i] = 0;
    }
    for (int turn = 0; turn < 2; ++turn) {
      double expected = 0;
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        direction[i] = std::uniform_real_distribution<double>(-1, 1)(random);
        expected += direction[i] * gradient[i];
      }
      const double scale = largest * std::sqrt(static_cast<double>(gradient.size()));
      EXPECT_NEAR(differences.along(x, direction), expected, row.closeness * scale)
          << "leaf " << leaf << " direction " << turn;
    }
  }
}

std::vector<OpCase> with_gradients() {
  std::vector<OpCase> rows;
  for (const OpCase& row : op_cases()) {
    if (std::find(row.dtypes.begin(), row.dtypes.end(), DType::f64) == row.dtypes.end()) continue;
    if (BuiltCase(row, DType::f64).loss.valid()) rows.push_back(row);
  }
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Rows, OpGradients, testing::ValuesIn(with_gradients()), test_name);

}  // namespace
}  // namespace ftrain::cpu
