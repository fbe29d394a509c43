#include "ftrain/base/log.h"

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

class Log : public testing::Test {
 protected:
  Log() { std::filesystem::remove(file_); }
  ~Log() override {
    log::also_to({});
    log::quiet(false);
    std::filesystem::remove(file_);
  }
  std::string written() const {
    std::ifstream in(file_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  const std::filesystem::path file_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("ftrain_log_") + testing::UnitTest::GetInstance()->current_test_info()->name() +
       ".txt");
};

TEST_F(Log, WritesPlainLinesToStandardError) {
  testing::internal::CaptureStderr();
  log::info("step 1 {} loss 2.5%");
  log::warning("slow disk");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "step 1 {} loss 2.5%\nwarning: slow disk\n");
}

TEST_F(Log, QuietSilencesInfoOnScreenButNotWarningsNorTheFile) {
  log::also_to(file_);
  log::quiet(true);
  testing::internal::CaptureStderr();
  log::info("hidden");
  log::warning("shown");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: shown\n");
  EXPECT_THAT(written(), HasSubstr("hidden"));
}

TEST_F(Log, LinesOfARankBeginWithItsNameOnScreen) {
  log::also_to(file_);
  testing::internal::CaptureStderr();
  log::speak_as("rank 2 on b");
  log::warning("slow disk");
  log::speak_as("");
  log::info("done");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "rank 2 on b: warning: slow disk\ndone\n");
  EXPECT_THAT(written(), Not(HasSubstr("rank 2")));
}

TEST_F(Log, FilesGetTimesAndAreAppendedTo) {
  testing::internal::CaptureStderr();
  log::also_to(file_);
  log::info("first");
  log::also_to({});
  log::info("lost");
  log::also_to(file_);
  log::info("second");
  testing::internal::GetCapturedStderr();
  EXPECT_THAT(written(), MatchesRegex("[-0-9]+ [:0-9]+ first\n[-0-9]+ [:0-9]+ second\n"));
  EXPECT_THAT(written(), Not(HasSubstr("lost")));
}

TEST_F(Log, LinesOfManyThreadsStayWhole) {
  log::also_to(file_);
  log::quiet(true);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 100; ++i) log::info("abcdefghijklmnopqrstuvwxyz");
    });
  }
  for (auto& thread : threads) thread.join();
  std::ifstream in(file_);
  int lines = 0;
  for (std::string line; std::getline(in, line); ++lines) {
    ASSERT_THAT(line, MatchesRegex("[-0-9]+ [:0-9]+ abcdefghijklmnopqrstuvwxyz"));
  }
  EXPECT_EQ(lines, 400);
}

TEST_F(Log, AFileThatCannotBeOpenedIsAnError) {
  EXPECT_THROW(log::also_to("/proc/no/such/log.txt"), DataError);
}

}  // namespace
}  // namespace ftrain
