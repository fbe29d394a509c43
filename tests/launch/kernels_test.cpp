// Kernels chosen by measurement: what the plan says of them, and what a run folder keeps.
#include <gmock/gmock.h>

#include <cstdlib>

#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

class MeasuredKernels : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    if (const char* before = std::getenv("FTRAIN_CACHE")) before_ = before;
    setenv("FTRAIN_CACHE", cache().c_str(), 1);
  }
  void TearDown() override {
    setenv("FTRAIN_CACHE", before_.c_str(), 1);
    Launch::TearDown();
  }

  fs::path cache() const { return folder_ / "cache"; }
  ordered_json kept(const std::string& name) const {
    return ordered_json::parse(read_text(run_folder(name) / "kernels.json"), nullptr, false);
  }

  std::string before_;
};

TEST_F(MeasuredKernels, ThePlanSaysWhoWonAndWhoLost) {
  // A network of 3x3 convolutions, which have several kernels on most processors.
  std::string text = job;
  const std::size_t from = text.find("[backbone]"), to = text.find("[head]");
  write("job.toml",
        text.replace(from, to - from, "[backbone]\nplugin = \"iresnet\"\ndepth = 18\n"));
  const Result result = ftrain({"plan", "job.toml", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  int measured = 0;
  const auto plan = nlohmann::json::parse(result.out);
  for (const auto& kernel : plan["kernels"]) {
    if (kernel["measured"].empty()) continue;
    ++measured;
    EXPECT_EQ(kernel["measured"][0]["kernel"], kernel["kernel"]);
    EXPECT_GT(kernel["measured"][0]["seconds"], 0);
    EXPECT_GT(kernel["flops"], 0);
    EXPECT_GT(kernel["measured"].size(), 1u);
  }
  EXPECT_EQ(measured > 0, fs::exists(cache() / "kernels.json"));
  if (measured > 0) {
    EXPECT_THAT(ftrain({"plan", "job.toml", "--kernels"}).out,
                AllOf(HasSubstr(" GFLOP/s; against "), HasSubstr(" ms")));
  }
  const Result fixed = ftrain({"plan", "job.toml", "--json", "--set", "device.autotune=false"});
  const auto fixed_plan = nlohmann::json::parse(fixed.out);
  for (const auto& kernel : fixed_plan["kernels"]) {
    EXPECT_TRUE(kernel["measured"].empty());
  }
}

TEST_F(MeasuredKernels, AContinuedRunTakesItsKernelsWhateverBecameOfTheCache) {
  ASSERT_EQ(ftrain(run("parts", {"--set", "run.stop_at=2"})).code, 0);
  if (!fs::exists(run_folder("parts") / "kernels.json")) {
    GTEST_SKIP() << "this processor has one kernel for each of the network's ops";
  }
  // As if the measurement had come out otherwise.
  ordered_json otherwise = kept("parts");
  for (auto& processor : otherwise) {
    for (auto& section : processor) {
      for (auto& answer : section) {
        for (const auto& [kernel, seconds] : answer["seconds"].items()) {
          if (kernel != answer["kernel"]) {
            answer["kernel"] = kernel;
            break;
          }
        }
      }
    }
  }
  ASSERT_NE(otherwise, kept("parts"));
  std::ofstream(run_folder("parts") / "kernels.json") << otherwise.dump();
  fs::remove_all(cache());
  ASSERT_EQ(ftrain(run("parts", {"--resume", "--set", "run.stop_at=4"})).code, 0);
  EXPECT_EQ(kept("parts"), otherwise);
  const Result fresh = ftrain(run("parts", {"--fresh"}));
  ASSERT_EQ(fresh.code, 0);
  EXPECT_THAT(fresh.err, HasSubstr("measured in"));
  EXPECT_NE(kept("parts"), otherwise);
}

}  // namespace
}  // namespace launch_test
