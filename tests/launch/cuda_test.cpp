// A job for a GPU on a machine that has none.
#include <gmock/gmock.h>

#include "launch/program.h"

namespace launch_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Cuda : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    if (ftrain({"plugins", "cuda"}).code != 0) GTEST_SKIP() << "this build has no plugin cuda";
    if (fs::exists("/dev/nvidiactl")) GTEST_SKIP() << "this machine has a driver";
  }
};

TEST_F(Cuda, SaysThatThereIsNoDriverAndWritesNothing) {
  for (const char* command : {"run", "plan"}) {
    const Result result = ftrain({command, "job.toml", "--set", "device.plugin=cuda"});
    EXPECT_EQ(result.code, 4) << command;
    EXPECT_THAT(result.err, AllOf(HasSubstr("DeviceError: [device] plugin = \"cuda\""),
                                  HasSubstr("no NVIDIA driver"), HasSubstr("plugin = \"cpu\"")));
    EXPECT_FALSE(fs::exists(folder_ / "runs"));
  }
}

TEST_F(Cuda, ItsStepIsPlannedForAGpuThatIsNotThere) {
  const std::vector<std::string> assumed{"--set", "device.plugin=cuda", "--set",
                                         "device.assume=h200"};
  const auto with = [&](std::vector<std::string> words) {
    words.insert(words.end(), assumed.begin(), assumed.end());
    return ftrain(words);
  };
  const Result plan = with({"plan", "job.toml"});
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_THAT(plan.out, AllOf(HasSubstr("NVIDIA H200, assumed"), HasSubstr("arena")));
  const Result run = with({"run", "job.toml"});
  EXPECT_EQ(run.code, 4);
  EXPECT_THAT(run.err, HasSubstr("assume = \"h200\" is for plans"));
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(Cuda, WhereNoneIsToBeSeenTheCpuIsChosen) {
  const Result result =
      ftrain({"run", "job.toml", "--set", "device.plugin=auto", "--set", "run.steps=1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(read_text(run_folder("small") / "log.txt"), HasSubstr("CPU "));
}

}  // namespace
}  // namespace launch_test
