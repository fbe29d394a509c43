// Where answers come from, and what becomes of files that are not what they should be.
#include "plugins/devices/cuda/device/plan_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/compile/tuning_cache.h"
#include "ftrain/base/error.h"

namespace ftrain::cuda {
namespace {

const Circumstances here{"a GPU", "library 1.2.3, driver 13000"};

class PlanCaches : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  PlanCache cache(const Circumstances& circumstances = here) const {
    return {file_, circumstances, "plans"};
  }
  // What the cache says of it; `fresh` when it had to be measured.
  std::string ask(PlanCache& cache, const std::string& problem, const std::string& fresh = "fresh",
                  bool lasting = true) {
    return cache
        .answer(problem,
                [&] {
                  ++measured_;
                  return PlanCache::Measured{{fresh, {{fresh, 0.5}}}, lasting};
                })
        .kernel;
  }
  void write(const std::string& text) const { std::ofstream(file_) << text; }

  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() /
      ("ftrain_plans_" +
       std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
       std::to_string(::getpid()));
  const std::filesystem::path file_ = folder_ / "below" / "plans.json";
  int measured_ = 0;
};

TEST_F(PlanCaches, MeasureOnceAndKeepIt) {
  {
    PlanCache first = cache();
    EXPECT_EQ(ask(first, "1 x 1", "fast"), "fast");
    EXPECT_EQ(ask(first, "1 x 1", "other"), "fast");
    EXPECT_EQ(ask(first, "2 x 2", "slow"), "slow");
  }
  PlanCache second = cache();
  EXPECT_EQ(ask(second, "1 x 1"), "fast");
  EXPECT_EQ(ask(second, "2 x 2"), "slow");
  EXPECT_EQ(measured_, 2);
  EXPECT_THAT(answers_in(content_of(file_), here).at("1 x 1").seconds,
              testing::ElementsAre(std::pair<std::string, double>("fast", 0.5)));
}

TEST_F(PlanCaches, TakeWhatAnotherFoundMeanwhile) {
  PlanCache first = cache(), second = cache();
  ask(second, "something else");
  EXPECT_EQ(ask(first, "1 x 1", "found by the first"), "found by the first");
  EXPECT_EQ(ask(second, "1 x 1", "found by the second"), "found by the first");
}

TEST_F(PlanCaches, OfManyThreadsAgree) {
  std::vector<std::string> found(8);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < found.size(); ++i) {
    threads.emplace_back([&, i] {
      PlanCache own = cache();
      const auto measure = [i] { return PlanCache::Measured{{std::to_string(i), {}}}; };
      for (const char* problem : {"a", "b", "c"}) found[i] += own.answer(problem, measure).kernel;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(found, testing::Each(found[0]));
  EXPECT_EQ(answers_in(content_of(file_), here).size(), 3u);
}

TEST_F(PlanCaches, KnowNothingOfOtherCircumstances) {
  PlanCache first = cache();
  ask(first, "1 x 1", "of the first");
  PlanCache other = cache({"a GPU", "library 1.2.4, driver 13000"});
  EXPECT_EQ(ask(other, "1 x 1", "of the other"), "of the other");
  PlanCache again = cache();
  EXPECT_EQ(ask(again, "1 x 1"), "of the first");
}

TEST_F(PlanCaches, MeasureAnewWhatDoesNotSuit) {
  PlanCache first = cache();
  ask(first, "1 x 1", "old");
  PlanCache second = cache();
  const Answer& answer = second.answer(
      "1 x 1",
      [] {
        return PlanCache::Measured{{"new", {}}};
      },
      [](const Answer& known) { return known.kernel != "old"; });
  EXPECT_EQ(answer.kernel, "new");
  PlanCache third = cache();
  EXPECT_EQ(ask(third, "1 x 1"), "new");
}

TEST_F(PlanCaches, DoNotKeepGuesses) {
  PlanCache first = cache();
  EXPECT_EQ(ask(first, "1 x 1", "guess", false), "guess");
  EXPECT_EQ(ask(first, "1 x 1", "other"), "guess");
  PlanCache second = cache();
  EXPECT_EQ(ask(second, "1 x 1", "measured"), "measured");
}

TEST_F(PlanCaches, ReplaceADamagedFile) {
  for (const char* text : {"{\"a GPU\": {", "[]", "{\"a GPU\": 3}", "no JSON"}) {
    std::filesystem::create_directories(file_.parent_path());
    write(text);
    testing::internal::CaptureStderr();
    PlanCache damaged = cache();
    EXPECT_EQ(ask(damaged, "1 x 1", "anew"), "anew") << text;
    EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("measured anew"));
    PlanCache after = cache();
    EXPECT_EQ(ask(after, "1 x 1"), "anew") << text;
  }
}

TEST_F(PlanCaches, WorkWithoutAFolderToWrite) {
  write("");  // stands where the folder would
  std::filesystem::remove_all(file_.parent_path());
  std::ofstream(file_.parent_path()) << "a file";
  testing::internal::CaptureStderr();
  PlanCache first = cache();
  EXPECT_EQ(ask(first, "1 x 1", "one"), "one");
  EXPECT_EQ(ask(first, "2 x 2", "two"), "two");
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, testing::HasSubstr("FTRAIN_CACHE"));
  EXPECT_EQ(said.find("not kept"), said.rfind("not kept")) << "said twice";
  PlanCache nowhere({}, here, "plans");
  EXPECT_EQ(ask(nowhere, "1 x 1", "three"), "three");
}

TEST_F(PlanCaches, RepeatWhatAnotherProcessTook) {
  PlanCache first({}, here, "plans");
  ask(first, "1 x 1", "of the run");
  const std::string used = first.used();

  PlanCache file = cache();
  ask(file, "1 x 1", "of the file");
  PlanCache continued = cache();
  continued.repeat(used);
  EXPECT_EQ(ask(continued, "1 x 1"), "of the run");
  EXPECT_EQ(continued.used(), used);

  PlanCache elsewhere({}, {"another GPU", here.rest}, "plans");
  elsewhere.repeat(used);
  EXPECT_EQ(ask(elsewhere, "1 x 1", "its own"), "its own");
  EXPECT_EQ(PlanCache({}, here, "plans").used(), "");
  EXPECT_THROW(elsewhere.repeat("nonsense"), DataError);
}

}  // namespace
}  // namespace ftrain::cuda
