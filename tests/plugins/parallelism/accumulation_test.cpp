// Gradient accumulation: a step in parts is the step on as many ranks, or in one larger batch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

const std::vector<std::string>& heads() {
  static const std::vector<std::string> all{
      "plugin = \"softmax\"",
      "plugin = \"normalized_softmax\"\nscale = 8.0",
      "plugin = \"cosface\"\nscale = 8.0\nmargin = 0.2",
      "plugin = \"arcface\"\nscale = 8.0\nmargin = 0.3",
      "plugin = \"combined\"\nscale = 8.0\nm1 = 1.0\nm2 = 0.2\nm3 = 0.1",
  };
  return all;
}

const std::vector<std::string>& strategies() {
  static const std::vector<std::string> all{
      "plugin = \"data_parallel\"",
      "plugin = \"model_parallel\"",
      "plugin = \"partial_fc\"\nsample_rate = 0.3",
      "plugin = \"partial_fc\"\nsample_rate = 0.3\nrows = \"all\"",
  };
  return all;
}

// Batches of 4 with statistics of their own, wherever they are.
TEST(Accumulation, PartsOfAStepAreItsRanks) {
  for (const std::string& strategy : strategies()) {
    for (const std::string& head : heads()) {
      SCOPED_TRACE(strategy + " " + head);
      TinyJob job{.ranks = 4, .head = head, .parallelism = strategy};
      const TinyRun ranks = run_tiny(job);
      job.ranks = 1, job.parts = 4;
      const TinyRun parts = run_tiny(job);
      expect_same_losses(parts, ranks, 1e-5);
      expect_same_states(parts, ranks, 5e-5, false);
      job.ranks = job.parts = 2;
      const TinyRun both = run_tiny(job);
      expect_same_losses(both, ranks, 1e-5);
      expect_same_states(both, ranks, 5e-5, false);
      EXPECT_EQ(parts.sampled, ranks.sampled);
      EXPECT_EQ(both.sampled, ranks.sampled);
    }
  }
}

TEST(Accumulation, PartsOfAStepAreGroupsOfOneLargeBatch) {
  for (const std::string& strategy : strategies()) {
    SCOPED_TRACE(strategy);
    TinyJob job{.batch = 12, .parallelism = strategy + "\nbatch_norm = 4"};
    const TinyRun whole = run_tiny(job);
    job.parts = 3, job.batch = 4;
    const TinyRun parts = run_tiny(job);
    expect_same_losses(parts, whole, 1e-5);
    expect_same_states(parts, whole, 5e-5, false);
    // Groups smaller than a part, too.
    job.parts = 2, job.batch = 12;
    job.parallelism = strategy + "\nbatch_norm = 6";
    const TinyRun halves = run_tiny(job);
    job.parts = 1, job.batch = 24;
    expect_same_losses(halves, run_tiny(job), 1e-5);
  }
}

TEST(Accumulation, PlainLoopsDoTheSame) {
  for (const std::string& strategy : strategies()) {
    SCOPED_TRACE(strategy);
    TinyJob job{.ranks = 1, .parts = 3, .steps = 4, .parallelism = strategy};
    const TinyRun fast = run_tiny(job);
    job.device = "kernels = \"reference\"";
    const TinyRun plain = run_tiny(job);
    expect_same_losses(fast, plain, 1e-5);
    expect_same_states(fast, plain, 5e-5, true);
  }
}

// With a rate of 0 the weights rest, and parts do to the statistics what as many steps do.
TEST(Accumulation, RunningStatisticsTakePartAfterPart) {
  TinyJob job{.parts = 3, .steps = 2, .rate = 0, .flip = 0};
  const TinyRun parts = run_tiny(job);
  job.parts = 1, job.steps = 6;
  const TinyRun steps = run_tiny(job);
  for (const char* name : {"norm.running_mean", "norm.running_var"}) {
    const auto &a = parts.states.at(name), &b = steps.states.at(name);
    for (std::size_t c = 0; c < a.size(); ++c) {
      EXPECT_NEAR(a[c], b[c], 1e-6f * std::abs(b[c])) << name << " " << c;
    }
  }
}

TEST(Accumulation, StatisticsOfAllRanksWantOnePart) {
  TinyJob job{.parts = 2,
              .steps = 1,
              .parallelism =
                  "plugin = \"model_parallel\"\n"
                  "batch_norm = \"global\""};
  try {
    run_tiny(job);
    FAIL() << "no ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("[parallelism] batch_norm = \"global\""));
    EXPECT_THAT(error.what(), testing::HasSubstr("[run] accumulate = 2"));
    EXPECT_THAT(error.what(), testing::HasSubstr("a number of samples that divides"));
  }
}

// Activations of a part are gone when the next one begins: only sums of gradients are added.
TEST(Accumulation, TakesNoMoreActivationsThanAPart) {
  for (const std::string recompute : {"none", "cheap", "block"}) {
    for (const std::string& strategy : strategies()) {
      SCOPED_TRACE(strategy + " recompute " + recompute);
      TinyJob job{.batch = 96, .steps = 1, .parallelism = strategy};
      job.device = "recompute = \"" + recompute + "\"";
      const TinyRun one = run_tiny(job);
      job.parts = 4;
      const TinyRun four = run_tiny(job);
      job.parts = 1;
      job.batch = 4 * 96;
      const TinyRun large = run_tiny(job);
      // The sums, a part's image, and small things of each part until the end.
      const std::size_t part_image = 96 * 8 * 8 * 3, small = 4096;
      EXPECT_LE(four.arena_bytes, one.arena_bytes + one.gradient_bytes + part_image + small);
      EXPECT_GT(large.arena_bytes, four.arena_bytes * 3 / 2);
    }
  }
}

}  // namespace
}  // namespace ftrain
