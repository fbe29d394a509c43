// The factors of each schedule at chosen steps.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/model/schedule.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

std::unique_ptr<Schedule> make(const std::string& plugin, const std::string& keys = "") {
  static Registry registry({FTRAIN_PLUGINS});
  return registry.create<Schedule>(Job::parse("[schedule]\nplugin = \"" + plugin + "\"\n" + keys));
}

TEST(StepSchedule, ChangesAtItsSteps) {
  const auto s = make("step", "at = [10, 20]\nfactors = [0.1, 0.01]");
  EXPECT_EQ(s->factor(0, 30, 5), 1);
  EXPECT_EQ(s->factor(9, 30, 5), 1);
  EXPECT_EQ(s->factor(10, 30, 5), 0.1);
  EXPECT_EQ(s->factor(29, 30, 5), 0.01);
  EXPECT_EQ(make("step")->factor(1000, 2000, 5), 1);
}

TEST(StepSchedule, RefusesListsThatDoNotFit) {
  EXPECT_THROW(make("step", "at = [10, 20]\nfactors = [0.1]"), ConfigError);
  EXPECT_THROW(make("step", "at = [20, 10]\nfactors = [0.1, 0.01]"), ConfigError);
}

TEST(StepSchedule, CountsInEpochsWhenAsked) {
  const auto s = make("step", "unit = \"epoch\"\nat = [2.0]\nfactors = [0.5]");
  EXPECT_EQ(s->factor(19, 100, 10), 1);
  EXPECT_EQ(s->factor(20, 100, 10), 0.5);
}

TEST(Polynomial, FallsFromOneToItsEnd) {
  const auto line = make("polynomial");
  EXPECT_DOUBLE_EQ(line->factor(0, 100, 10), 1);
  EXPECT_DOUBLE_EQ(line->factor(25, 100, 10), 0.75);
  EXPECT_NEAR(line->factor(99, 100, 10), 0.01, 1e-12);
  EXPECT_DOUBLE_EQ(line->factor(100, 100, 10), 0);
  const auto square = make("polynomial", "power = 2\nend = 0.2");
  EXPECT_DOUBLE_EQ(square->factor(50, 100, 10), 0.2 + 0.8 * 0.25);
}

TEST(Polynomial, WarmsUpThenFallsOverTheRest) {
  const auto s = make("polynomial", "warmup = 20\nwarmup_from = 0.1");
  EXPECT_DOUBLE_EQ(s->factor(0, 100, 10), 0.1);
  EXPECT_DOUBLE_EQ(s->factor(10, 100, 10), 0.55);
  EXPECT_DOUBLE_EQ(s->factor(20, 100, 10), 1);
  EXPECT_DOUBLE_EQ(s->factor(60, 100, 10), 0.5);
  EXPECT_DOUBLE_EQ(s->factor(100, 100, 10), 0);
}

TEST(Cosine, IsHalfACosine) {
  const auto s = make("cosine", "end = 0.1");
  EXPECT_DOUBLE_EQ(s->factor(0, 100, 10), 1);
  EXPECT_NEAR(s->factor(25, 100, 10), 0.1 + 0.45 * (1 + std::cos(std::numbers::pi / 4)), 1e-12);
  EXPECT_NEAR(s->factor(100, 100, 10), 0.1, 1e-12);
  const auto warm = make("cosine", "unit = \"epoch\"\nwarmup = 1");
  EXPECT_DOUBLE_EQ(warm->factor(5, 110, 10), 0.5);
  EXPECT_DOUBLE_EQ(warm->factor(10, 110, 10), 1);
  EXPECT_NEAR(warm->factor(60, 110, 10), 0.5, 1e-12);
}

TEST(Schedules, MoveWhereEpochsBeginWhenAsked) {
  const auto s = make("polynomial", "update = \"epoch\"");
  EXPECT_DOUBLE_EQ(s->factor(10, 100, 10), 0.9);
  EXPECT_DOUBLE_EQ(s->factor(19, 100, 10), 0.9);
  EXPECT_DOUBLE_EQ(s->factor(20, 100, 10), 0.8);
}

}  // namespace
}  // namespace ftrain
