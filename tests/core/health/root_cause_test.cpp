// What watchers conclude, with time as a number.
#include <gmock/gmock.h>

#include "core/health/root_cause.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Optional;
using testing::StartsWith;

RankStatus works(std::int64_t finished, const std::string& work = "") {
  RankStatus status;
  status.finished = finished;
  status.last = finished > 0 ? "broadcast of 8 bytes" : "";
  status.work = work;
  return status;
}

RankStatus waits(std::int64_t finished, const std::string& operation = "all_reduce of 4 MiB") {
  RankStatus status = works(finished);
  status.waiting = true;
  status.operation = operation;
  return status;
}

// Three ranks that are heard of every second; hear() says what they have said since.
class JudgeTest : public testing::Test {
 protected:
  std::optional<std::string> at(double now, const std::vector<RankStatus>& statuses) {
    for (; now_ < now; now_ += 1) {
      for (std::size_t r = 0; r < statuses.size(); ++r) {
        judge_.hear(static_cast<int>(r), statuses[r], now_);
      }
    }
    return judge_.overdue(now_);
  }
  Judge judge_{{"rank 0 on a", "rank 1 on a", "rank 2 on b"}, 10};
  double now_ = 0;
};

TEST_F(JudgeTest, NobodyWaitsForLongIsNoFinding) {
  EXPECT_EQ(at(9, {waits(3), waits(3), works(3)}), std::nullopt);
  EXPECT_EQ(at(18, {waits(4), waits(4), works(4)}), std::nullopt);
}

TEST_F(JudgeTest, WorkThatNobodyWaitsForTakesItsTime) {
  EXPECT_EQ(at(1000, {works(3), works(3), works(3)}), std::nullopt);
}

TEST_F(JudgeTest, NamesTheRankThatDoesNotCome) {
  EXPECT_THAT(at(12, {waits(3), waits(3), works(3, "step 7: reading data")}),
              Optional(AllOf(StartsWith("rank 2 on b keeps the others waiting"),
                             HasSubstr("all_reduce of 4 MiB for 12 s"),
                             HasSubstr("it is at \"step 7: reading data\""),
                             HasSubstr("collective 3, broadcast of 8 bytes"))));
}

TEST_F(JudgeTest, ARankThatGoesOnIsWaitedFor) {
  RankStatus busy = works(3, "verifying batch 1");
  for (int second = 1; second < 60; ++second) {
    ++busy.notes;
    EXPECT_EQ(at(second, {waits(3), waits(3), busy}), std::nullopt);
  }
}

TEST_F(JudgeTest, NamesTheRankThatIsBehindWhenAllWait) {
  EXPECT_THAT(at(12, {waits(4), waits(3, "broadcast of 1 KiB"), waits(4)}),
              Optional(AllOf(StartsWith("rank 1 on a keeps the others waiting"),
                             HasSubstr("in broadcast of 1 KiB"))));
}

TEST_F(JudgeTest, NamesTheOperationWhenAllWaitInIt) {
  EXPECT_THAT(
      at(12, {waits(4), waits(4), waits(4)}),
      Optional(AllOf(StartsWith("all ranks wait in all_reduce of 4 MiB"), HasSubstr("network"))));
}

TEST_F(JudgeTest, NamesRanksThatWaitInDifferentOperations) {
  EXPECT_THAT(
      at(12, {waits(4), waits(4, "barrier"), waits(4)}),
      Optional(AllOf(HasSubstr("different operations"), HasSubstr("rank 1 on a in barrier"))));
}

TEST_F(JudgeTest, NamesARankThatHasLeft) {
  EXPECT_EQ(at(2, {works(4), works(4), works(4)}), std::nullopt);
  judge_.leave(1);
  EXPECT_THAT(at(20, {waits(4), works(4), waits(4)}),
              Optional(StartsWith("rank 1 on a has ended its part while rank 0 on a waits")));
}

TEST_F(JudgeTest, NamesARankOfWhichNothingIsHeard) {
  at(2, {works(1), works(1), waits(1)});
  EXPECT_THAT(at(13, {works(2), works(2)}),
              Optional(AllOf(StartsWith("rank 2 on b has not been heard of for"),
                             HasSubstr("it was in all_reduce of 4 MiB"))));
  EXPECT_THAT(judge_.silent(now_), Optional(StartsWith("rank 2 on b")));
  judge_.leave(2);
  EXPECT_EQ(judge_.silent(now_), std::nullopt);
}

TEST_F(JudgeTest, WithoutATimeoutItWaits) {
  Judge patient({"rank 0", "rank 1"}, 0);
  patient.hear(0, waits(1), 0);
  EXPECT_EQ(patient.overdue(1e9), std::nullopt);
}

TEST_F(JudgeTest, SaysHowARankEnded) {
  at(2, {waits(2), waits(2), works(2, "step 2: forward")});
  EXPECT_THAT(judge_.died(2, false, now_),
              AllOf(StartsWith("rank 2 on b ended without a word"), HasSubstr("step 2: forward"),
                    HasSubstr("collective 2, broadcast of 8 bytes")));
  EXPECT_THAT(judge_.died(2, true, now_), HasSubstr("can no longer be reached"));
  EXPECT_THAT(Judge({"rank 0", "rank 1"}, 1).died(1, false, 0),
              HasSubstr("it had finished no collective yet"));
}

}  // namespace
}  // namespace ftrain
