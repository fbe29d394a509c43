// The same bits on the stand-in for a GPU: run again, in whatever order streams get their turns,
// replayed or enqueued kernel by kernel, stopped and continued; and errors that end a job.
#include "program/standin_program.h"

namespace standin {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Bits : public Program {
 protected:
  // Two runs kernel by kernel, then the step is recorded and replayed.
  static Settings with(Settings settings) {
    settings.insert(settings.begin(), "run.steps=4");
    return settings;
  }
  static Settings on_two_ranks(Settings settings) {
    settings.insert(settings.end(), {"launch.processes=2", "parallelism.plugin=partial_fc",
                                     "parallelism.sample_rate=0.5"});
    return with(settings);
  }
};

TEST_F(Bits, AreTheSameInEveryOrderOfStreams) {
  train("first", on_two_ranks({}));
  for (const char* seed : {"1", "2"}) {
    tell_standin(std::string("seed=") + seed);
    const std::string name = std::string("seed") + seed;
    train(name, on_two_ranks({}));
    expect_same_bits(name, "first");
  }
}

TEST_F(Bits, AreTheSameCapturedAndPlain) {
  train("captured_ranks", on_two_ranks({}));
  train("plain_ranks", on_two_ranks({"device.capture=false"}));
  expect_same_bits("captured_ranks", "plain_ranks");
}

TEST_F(Bits, OfAnR18AreTheSameCapturedAndPlain) {
  STANDIN_WANTS_SPEED();
  take_r18();
  train("captured", with({}));
  train("plain", with({"device.capture=false"}));
  expect_same_bits("captured", "plain");
}

TEST_F(Bits, AreTheSameWithCollectivesBesideTheKernelsAndAmongThem) {
  train("beside", on_two_ranks({}));
  train("among", on_two_ranks({"device.overlap=false"}));
  expect_same_bits("beside", "among");
}

TEST_F(Bits, AreTheSameWithCentersInTheMemoryOfTheHost) {
  train("device", on_two_ranks({}));
  train("host", on_two_ranks({"parallelism.centers_memory=host"}));
  expect_same_bits("host", "device");
}

TEST_F(Bits, AreTheSameStoppedAndContinued) {
  for (const std::string precision : {"fp32", "fp16"}) {
    SCOPED_TRACE(precision);
    const std::string whole = "whole_" + precision, parts = "parts_" + precision;
    const auto settings = [&](Settings more) {
      more.push_back("device.precision=" + precision);
      return precision == "fp32" ? on_two_ranks(more) : with(more);
    };
    train(whole, settings({}));
    train(parts, settings({"run.stop_at=3"}));
    train(parts, settings({}));
    expect_same_bits(parts, whole);
  }
}

// A step is read while the next one is under way, unless a checkpoint follows it.
TEST_F(Bits, OfAStepThatIsReadLateAreItsOwn) {
  for (const std::string precision : {"fp32", "fp16"}) {
    SCOPED_TRACE(precision);
    const std::string late = "late_" + precision, at_once = "at_once_" + precision;
    const std::string device = "device.precision=" + precision;
    train(late, {"run.steps=6", device});
    train(at_once, {"run.steps=6", device, "checkpoint.every=1", "checkpoint.keep=6"});
    expect_same_bits(late, at_once);
    const auto lines = metrics(late);
    ASSERT_EQ(lines.size(), 6u);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      EXPECT_EQ(lines[i]["step"], i + 1);
      // What the scale is after the step, as a checkpoint of it has it.
      if (precision == "fp16") {
        EXPECT_EQ(lines[i]["metrics"]["loss_scale"].get<float>(),
                  scalar(at_once, static_cast<int>(i) + 1, "loss_scale"));
      }
    }
    EXPECT_EQ(summary(late)["loss"], lines.back()["loss"]);
    EXPECT_EQ(summary(late)["steps"], 6);
  }
}

TEST_F(Bits, AreTheSameWhenActivationsAreMadeAgain) {
  train("kept", {"run.steps=2"});
  train("again", {"run.steps=2", "device.recompute=block"});
  expect_same_bits("again", "kept");
}

// ---- errors, by name and exit code

class Failures : public Program {
 protected:
  Result fail(const std::string& wishes) const {
    tell_standin(wishes);
    Result result = try_to_train("job", {});
    EXPECT_EQ(result.code, 4) << result.err;
    return result;
  }
};

TEST_F(Failures, OfTheMachineAreNamed) {
  EXPECT_THAT(fail("devices=0").err, HasSubstr("GPU"));
  EXPECT_THAT(fail("fail=cudaGetDeviceCount:35:0").err, HasSubstr("driver"));
  EXPECT_THAT(fail("capability=75").err, AllOf(HasSubstr("sm_75"), HasSubstr("sm_80")));
}

TEST_F(Failures, OfMemorySayWhatWasNeeded) {
  EXPECT_THAT(fail("memory=8388608").err,
              AllOf(HasSubstr("too little memory"), HasSubstr("batch")));
}

TEST_F(Failures, WhileTrainingAreNamed) {
  EXPECT_THAT(fail("fail=kernel:214:600").err, HasSubstr("ECC"));
  EXPECT_THAT(fail("fail=kernel:700:300").err, HasSubstr("illegal memory access"));
}

}  // namespace
}  // namespace standin
