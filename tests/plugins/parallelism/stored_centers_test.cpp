// Where and in what class centers are stored: [parallelism] centers and centers_memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ftrain/base/error.h"
#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string strategy(const std::string& plugin) {
  const std::string text = "plugin = \"" + plugin + "\"\nbatch_norm = 4";
  return plugin == "partial_fc" ? text + "\nsample_rate = 0.5" : text;
}

// The share of equal elements.
double equal_share(const std::vector<float>& a, const std::vector<float>& b) {
  std::size_t equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

bool is_bf16(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return to_f32(to_bf16(x)) == x; });
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  }
  return std::sqrt(sum);
}

TEST(CentersInBf16, FollowTheCurveOfFp32) {
  for (const std::string plugin : {"data_parallel", "model_parallel", "partial_fc"}) {
    SCOPED_TRACE(plugin);
    TinyJob job{.batch = 16, .steps = 0, .rate = 0.005};
    job.parallelism = strategy(plugin);
    const TinyRun begin = run_tiny(job);
    job.steps = 40;
    const TinyRun fp32 = run_tiny(job);
    job.parallelism += "\ncenters = \"bf16\"";
    const TinyRun bf16 = run_tiny(job);
    EXPECT_NE(bf16.loss, fp32.loss);
    expect_same_losses(bf16, fp32, 1e-2);
    for (const char* name : {"centers.weight", "centers.weight.momentum"}) {
      const std::vector<float>&stored = bf16.states.at(name), &exact = fp32.states.at(name);
      EXPECT_TRUE(is_bf16(stored)) << name;
      EXPECT_FALSE(is_bf16(exact)) << name;
      EXPECT_LT(distance(stored, exact), 0.1 * distance(begin.states.at(name), exact)) << name;
    }
  }
}

// Rounding is the global row's: what differs in the last bits of f32 is mostly rounded alike.
TEST(CentersInBf16, AreTheSameTrainingOnAnyNumberOfRanks) {
  for (const std::string plugin : {"model_parallel", "partial_fc"}) {
    SCOPED_TRACE(plugin);
    TinyJob job{.ranks = 4, .batch = 4, .steps = 10};
    job.parallelism = strategy(plugin) + "\ncenters = \"bf16\"";
    const TinyRun four = run_tiny(job);
    job.ranks = 1, job.batch = 16;
    const TinyRun one = run_tiny(job);
    expect_same_losses(four, one, 1e-3);
    EXPECT_EQ(four.sampled, one.sampled);
    EXPECT_GT(equal_share(four.states.at("centers.weight"), one.states.at("centers.weight")), 0.95);
    EXPECT_EQ(run_tiny(job).states, one.states);
  }
}

TEST(CentersInBf16, TakeGradientsOfSeveralParts) {
  TinyJob job{.parts = 4, .batch = 4, .steps = 10};
  job.parallelism = strategy("model_parallel") + "\ncenters = \"bf16\"";
  const TinyRun parts = run_tiny(job);
  job.parts = 1, job.batch = 16;
  expect_same_losses(parts, run_tiny(job), 1e-3);
}

TEST(CentersInHostMemory, AreTheSameTraining) {
  for (const std::string plugin : {"data_parallel", "model_parallel", "partial_fc"}) {
    for (const std::string more : {"", "\ncenters = \"bf16\""}) {
      TinyJob job{.steps = 5};
      job.parallelism = strategy(plugin) + more;
      const TinyRun device = run_tiny(job);
      job.parallelism += "\ncenters_memory = \"host\"";
      const TinyRun host = run_tiny(job);
      EXPECT_EQ(host.loss, device.loss);
      EXPECT_EQ(host.states, device.states);
    }
  }
}

TEST(StoredCenters, WantAStrategyThatUpdatesRowsInPlace) {
  for (const std::string key : {"centers = \"bf16\"", "centers_memory = \"host\""}) {
    TinyJob job{.ranks = 2, .steps = 1};
    job.parallelism = "plugin = \"data_parallel\"\n" + key;
    EXPECT_THAT([&] { run_tiny(job); },
                ThrowsMessage<ConfigError>(AllOf(
                    HasSubstr("[parallelism] " + key), HasSubstr("data_parallel on several ranks"),
                    HasSubstr("model_parallel"), HasSubstr("partial_fc"))));
    job.parallelism = "plugin = \"model_parallel\"\n" + key.substr(0, key.find('"')) + "\"disk\"";
    EXPECT_THAT([&] { run_tiny(job); }, ThrowsMessage<ConfigError>(HasSubstr("disk")));
  }
}

}  // namespace
}  // namespace ftrain
