// One training, whatever the strategy and the number of ranks: every head, uneven classes, sampled
// classes, features in bf16.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

class EveryHead : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    Heads, EveryHead,
    testing::Values("plugin = \"softmax\"", "plugin = \"normalized_softmax\"\nscale = 16.0",
                    "plugin = \"cosface\"\nscale = 16.0\nmargin = 0.3",
                    "plugin = \"arcface\"\nscale = 16.0\nmargin = 0.4",
                    "plugin = \"combined\"\nscale = 16.0\nm1 = 1.1\nm2 = 0.2\nm3 = 0.1"));

TEST_P(EveryHead, HasOneCurveInAnyParallelismOnAnyNumberOfRanks) {
  TinyJob job{.batch = 12, .steps = 50, .head = GetParam(), .rate = 0.001};
  TinyRun first;
  for (const std::string plugin : {"data_parallel", "model_parallel", "partial_fc"}) {
    job.parallelism = "batch_norm = \"global\"\nplugin = \"" + plugin + "\"";
    if (plugin == "partial_fc") job.parallelism += "\nsample_rate = 1.0";
    for (const int ranks : {1, 2, 3, 4}) {
      SCOPED_TRACE(plugin + " on " + std::to_string(ranks) + " ranks");
      job.ranks = ranks;
      job.batch = 12 / ranks;
      const TinyRun run = run_tiny(job);
      if (first.loss.empty()) first = run;
      expect_same_losses(run, first, 1e-5);
      expect_same_states(run, first, 1e-4, true);
    }
  }
  EXPECT_EQ(first.loss.size(), 50u);
}

TEST(PartialFcSteps, SampleTheSameClassesAndFollowOneCurve) {
  for (const std::string rows : {"sampled", "all"}) {
    TinyJob job{.batch = 12, .steps = 30, .classes = 301, .rate = 0.01};
    job.parallelism =
        "plugin = \"partial_fc\"\nsample_rate = 0.1\nbatch_norm = \"global\"\nrows = \"" + rows +
        "\"";
    const TinyRun one = run_tiny(job);
    ASSERT_EQ(one.sampled.size(), 30u);
    for (const std::set<std::int64_t>& step : one.sampled) {
      EXPECT_GT(step.size(), 20u);  // 30 and the batch's own, give or take
      EXPECT_LT(step.size(), 70u);
    }
    EXPECT_NE(one.sampled[0], one.sampled[1]);
    for (const int ranks : {2, 3, 4}) {
      SCOPED_TRACE(rows + " on " + std::to_string(ranks) + " ranks");
      job.ranks = ranks;
      job.batch = 12 / ranks;
      const TinyRun run = run_tiny(job);
      EXPECT_EQ(run.sampled, one.sampled);
      expect_same_losses(run, one, 1e-5);
      expect_same_states(run, one, 1e-4, true);
    }
  }
}

// 7 classes on 4 ranks are 2 + 2 + 2 + 1, 3 are 1 + 1 + 1 + 0.
TEST(UnevenClasses, AreTheSameTraining) {
  for (const std::int64_t classes : {7, 3}) {
    for (const std::string plugin : {"model_parallel", "partial_fc"}) {
      for (const std::int64_t parts : {1, 2}) {
        SCOPED_TRACE(plugin + " " + std::to_string(classes) + " classes, " + std::to_string(parts) +
                     " parts");
        TinyJob job{.ranks = 4, .parts = parts, .batch = 4, .steps = 10, .classes = classes};
        job.parallelism = "plugin = \"" + plugin + "\"\nbatch_norm = 4";
        if (plugin == "partial_fc") job.parallelism += "\nsample_rate = 0.5";
        const TinyRun four = run_tiny(job);
        job.ranks = 1, job.parts = 1, job.batch = 16 * parts;
        const TinyRun one = run_tiny(job);
        expect_same_losses(four, one, 1e-5);
        expect_same_states(four, one, 5e-5, false);
        EXPECT_EQ(four.sampled, one.sampled);
      }
    }
  }
}

TEST(Features, TravelInHalfTheBytesAsBf16) {
  for (const std::string plugin : {"model_parallel", "partial_fc"}) {
    SCOPED_TRACE(plugin);
    TinyJob job{.ranks = 3, .parts = 2, .steps = 20};
    job.parallelism = "plugin = \"" + plugin + "\"";
    const TinyRun fp32 = run_tiny(job);
    job.parallelism += "\nfeatures = \"bf16\"";
    const TinyRun bf16 = run_tiny(job);
    // Two bytes for each of 16 numbers of a sample; what else is gathered stays.
    const std::size_t samples = 20 * 2 * 4, width = 16;
    EXPECT_EQ(fp32.bytes.at("all_gather") - bf16.bytes.at("all_gather"), samples * width * 2);
    EXPECT_EQ(fp32.calls.at("all_gather"), bf16.calls.at("all_gather"));
    EXPECT_EQ(fp32.bytes.at("reduce_scatter"), bf16.bytes.at("reduce_scatter"));
    EXPECT_NE(bf16.loss, fp32.loss);
    expect_same_losses(bf16, fp32, 1e-2);
  }
}

// A step's collectives: (max, sum) pairs of the ranks go together, and gradients by buckets.
TEST(Collectives, AreFew) {
  TinyJob job{.ranks = 2, .steps = 1};
  const TinyRun run = run_tiny(job);
  // Features, norms, labels, (max, sum) pairs.
  EXPECT_EQ(run.calls.at("all_gather"), 4u);
  EXPECT_EQ(run.bytes.at("all_gather"), 4 * (16 * 4 + 4 + 8) + 2 * 4 * 2 * 4u);
  // Target cosines; and all gradients of the backbone, with what the ranks tell each other.
  EXPECT_EQ(run.calls.at("all_reduce"), 2u);
  EXPECT_EQ(run.notes[0], 0 + 1);
  EXPECT_EQ(run.notes[1], 2);
  job.parallelism += "\nbucket = 0.001";
  EXPECT_GT(run_tiny(job).calls.at("all_reduce"), 2u);
}

}  // namespace
}  // namespace ftrain
