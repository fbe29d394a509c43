// Loss scaling: what fp16 needs, tried in f32, where a power of two changes no bit.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

float scalar(const TinyRun& run, const std::string& name) {
  return run.states.at(name).at(0);
}

void expect_same_bits(const TinyRun& scaled, const TinyRun& plain) {
  EXPECT_EQ(scaled.loss, plain.loss);
  EXPECT_EQ(scaled.gradient_norm, plain.gradient_norm);
  EXPECT_EQ(scaled.states.size(), plain.states.size() + 2);
  for (const auto& [name, values] : plain.states) EXPECT_EQ(scaled.states.at(name), values) << name;
}

TEST(LossScale, ChangesNoBitOfAStep) {
  for (const std::string strategy : {"data_parallel", "model_parallel", "partial_fc"}) {
    for (const std::string optimizer : {"", "clip = 0.5", "clip = 1e6"}) {
      for (const bool accumulates : {false, true}) {
        SCOPED_TRACE(strategy + " " + optimizer + (accumulates ? " in parts" : ""));
        TinyJob job{.ranks = accumulates ? 2 : 1,
                    .parts = accumulates ? 3 : 1,
                    .steps = 6,
                    .parallelism = "plugin = \"" + strategy + "\""};
        job.optimizer = optimizer;
        const TinyRun plain = run_tiny(job);
        job.loss_scaling = LossScaling{};
        const TinyRun scaled = run_tiny(job);
        expect_same_bits(scaled, plain);
        EXPECT_EQ(scalar(scaled, "loss_scale"), 65536.0f);
        EXPECT_EQ(scalar(scaled, "loss_scale_steps"), 6.0f);
      }
    }
  }
}

TEST(LossScale, DoublesAfterGoodSteps) {
  TinyJob job{.steps = 7};
  const TinyRun plain = run_tiny(job);
  job.loss_scaling = LossScaling{.initial = 1024, .interval = 3};
  const TinyRun scaled = run_tiny(job);
  expect_same_bits(scaled, plain);
  EXPECT_EQ(scalar(scaled, "loss_scale"), 4096.0f);
  EXPECT_EQ(scalar(scaled, "loss_scale_steps"), 1.0f);
}

// The gradients' squares, times the scale's, are more than an f32 holds until the scale is halved
// often enough.
TEST(LossScale, OverflowSkipsTheStepAndHalvesTheScale) {
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    TinyJob job{.ranks = ranks, .steps = 0};
    const TinyRun before = run_tiny(job);
    job.overflows = true;
    job.loss_scaling = LossScaling{.initial = 0x1p72, .interval = 1000};
    job.steps = 3;
    const TinyRun skipped = run_tiny(job);
    EXPECT_EQ(skipped.ok, (std::vector<double>{0, 0, 0}));
    EXPECT_EQ(scalar(skipped, "loss_scale"), 0x1p69f);
    EXPECT_EQ(scalar(skipped, "loss_scale_steps"), 0.0f);
    for (const auto& [name, values] : before.states) {
      if (name.starts_with("centers.")) {
        EXPECT_NE(skipped.states.at(name), values) << name;  // their own step was finite
      } else {
        EXPECT_EQ(skipped.states.at(name), values) << name;
      }
    }
    job.steps = 30;
    const TinyRun recovered = run_tiny(job);
    EXPECT_EQ(recovered.ok.back(), 1);
    EXPECT_TRUE(std::isfinite(recovered.gradient_norm.back()));
    EXPECT_GT(scalar(recovered, "loss_scale_steps"), 0.0f);
    EXPECT_NE(recovered.states.at("conv.weight"), before.states.at("conv.weight"));
  }
}

}  // namespace
}  // namespace ftrain
