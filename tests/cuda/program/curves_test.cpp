// Training on the stand-in for a GPU follows the CPU device's curve: an r18 with every head under
// every parallelism on two ranks; a small MobileFaceNet, whose steps are captured, with every head;
// and what changes a step's program.
#include "program/standin_program.h"

namespace standin {
namespace {

// Of the largest loss, and of the largest gradient norm: sums in another order, a few steps long.
// An update that were wrong by a tenth would show five times as much.
constexpr double loss_share = 3e-4, norm_share = 5e-3;

struct Case {
  std::string name;
  Settings settings;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

// On one rank all but the sample is the same for every parallelism.
std::vector<Case> cases(const std::vector<std::string>& heads, int ranks) {
  const std::vector<Case> parallelisms{
      {"data_parallel", {"parallelism.plugin=data_parallel"}},
      {"model_parallel", {"parallelism.plugin=model_parallel"}},
      {"partial_fc", {"parallelism.plugin=partial_fc", "parallelism.sample_rate=1.0"}},
      {"partial_fc_03", {"parallelism.plugin=partial_fc", "parallelism.sample_rate=0.3"}}};
  std::vector<Case> all;
  for (const std::string& head : heads) {
    for (const Case& parallelism : parallelisms) {
      if (ranks == 1 && parallelism.name != "partial_fc_03") continue;
      Case c{head + "_" + parallelism.name + "_" + std::to_string(ranks), parallelism.settings};
      c.settings.push_back("head.plugin=" + head);
      c.settings.push_back("launch.processes=" + std::to_string(ranks));
      all.push_back(c);
    }
  }
  return all;
}

const std::vector<std::string> every_head{"softmax", "normalized_softmax", "arcface", "cosface",
                                          "combined"};

class Heads : public Program, public testing::WithParamInterface<Case> {};

TEST_P(Heads, FollowTheCpu) {
  Settings settings = GetParam().settings;
  settings.push_back("run.steps=3");  // the third is recorded and replayed
  train_on_both(settings);
  expect_near("gpu", "cpu", "loss", loss_share);
  expect_near("gpu", "cpu", "gradient_norm", norm_share);
}

class HeadsOfR18 : public Heads {};

TEST_P(HeadsOfR18, FollowTheCpu) {
  STANDIN_WANTS_SPEED();
  take_r18();
  Settings settings = GetParam().settings;
  settings.push_back("run.steps=2");
  train_on_both(settings);
  expect_near("gpu", "cpu", "loss", loss_share);
  expect_near("gpu", "cpu", "gradient_norm", norm_share);
}

const auto name_of_case = [](const testing::TestParamInfo<Case>& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(TwoRanks, HeadsOfR18, testing::ValuesIn(cases(every_head, 2)),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(TwoRanks, Heads, testing::ValuesIn(cases({"arcface"}, 2)), name_of_case);
INSTANTIATE_TEST_SUITE_P(OneRank, Heads, testing::ValuesIn(cases(every_head, 1)), name_of_case);

class Curves : public Program {};

TEST_F(Curves, FollowTheCpuWithAccumulatedGradients) {
  train_on_both({"run.accumulate=2", "run.steps=3"});
  expect_near("gpu", "cpu", "loss", loss_share);
  expect_near("gpu", "cpu", "gradient_norm", norm_share);
}

TEST_F(Curves, FollowTheCpuWithStatisticsOfAllRanks) {
  train_on_both({"parallelism.batch_norm=global", "launch.processes=2"});
  expect_near("gpu", "cpu", "loss", loss_share);
  expect_near("gpu", "cpu", "gradient_norm", norm_share);
}

TEST_F(Curves, FollowTheCpuWithCentersInBf16) {
  train_on_both({"run.steps=3", "parallelism.plugin=partial_fc", "parallelism.sample_rate=0.5",
                 "parallelism.centers=bf16"});
  expect_near("gpu", "cpu", "loss", loss_share);
  expect_near("gpu", "cpu", "gradient_norm", norm_share);
}

TEST_F(Curves, AreVerifiedAsOnTheCpu) {
  train_on_both({"run.steps=2", "verify.sets=[\"portraits\"]", "verify.portraits.identities=20",
                 "verify.portraits.pairs=20", "verify.portraits.size=32", "verify.batch=16"});
  const auto gpu = summary("gpu")["accuracy"]["portraits"];
  const auto cpu = summary("cpu")["accuracy"]["portraits"];
  EXPECT_NEAR(gpu["xnorm"].get<double>(), cpu["xnorm"].get<double>(),
              1e-3 * cpu["xnorm"].get<double>());
  EXPECT_NEAR(gpu["mean"].get<double>(), cpu["mean"].get<double>(), 0.1);
}

// ---- precisions

TEST_F(Curves, FollowFp32InOtherPrecisions) {
  STANDIN_WANTS_SPEED();
  take_r18();
  train("fp32", {"run.steps=3"});
  for (const auto& [precision, share] :
       std::map<std::string, double>{{"tf32", 2e-3}, {"bf16", 2e-2}, {"fp16", 5e-3}}) {
    SCOPED_TRACE(precision);
    train(precision, {"run.steps=3", "device.precision=" + precision, "device.loss_scale=64"});
    expect_near(precision, "fp32", "loss", share);
    EXPECT_NE(values(precision, "loss"), values("fp32", "loss"));
  }
}

// A scale far too large: the first step's gradients are infinite. It moves none of the backbone's
// parameters, and the scale halves until steps fit.
TEST_F(Curves, OfFp16PassOverStepsThatOverflow) {
  const auto settings = [](const std::string& rate) {
    return Settings{"device.precision=fp16", "device.loss_scale=8192",
                    "checkpoint.every=1",    "checkpoint.keep=8",
                    "run.steps=8",           "optimizer.rate=" + rate};
  };
  train("slow", settings("0.01"));
  train("fast", settings("0.02"));
  EXPECT_EQ(scalar("slow", 1, "loss_scale"), 4096.0f);
  EXPECT_TRUE(weights("slow", 1).at("rank-0.safetensors") ==
              weights("fast", 1).at("rank-0.safetensors"));
  EXPECT_FALSE(weights("slow", 8).at("rank-0.safetensors") ==
               weights("fast", 8).at("rank-0.safetensors"));
  EXPECT_EQ(scalar("slow", 8, "loss_scale"), scalar("slow", 7, "loss_scale"));
  EXPECT_LT(scalar("slow", 8, "loss_scale"), 4096.0f);
  EXPECT_TRUE(std::isfinite(values("slow", "loss").back()));
}

}  // namespace
}  // namespace standin
