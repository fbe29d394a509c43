// Which cores ranks get.
#include "plugins/devices/cpu/device/threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <thread>

namespace ftrain::cpu {
namespace {

using testing::ElementsAre;

// Sets a variable while it lives.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* const old = std::getenv(name)) old_ = old;
    setenv(name, value, 1);
  }
  ~Variable() {
    if (old_)
      setenv(name_, old_->c_str(), 1);
    else
      unsetenv(name_);
  }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

std::vector<int> cores_of_this_thread() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

TEST(CoresOfRanks, AreEqualPartsInOrder) {
  const std::vector<int> cores{0, 8, 1, 9, 2, 10, 3, 11};
  EXPECT_THAT(share_of(cores, 0, 2).cores, ElementsAre(0, 8, 1, 9));
  EXPECT_THAT(share_of(cores, 1, 2).cores, ElementsAre(2, 10, 3, 11));
  EXPECT_TRUE(share_of(cores, 1, 2).even);
  EXPECT_EQ(share_of(cores, 1, 2).threads(), 4);
  EXPECT_THAT(share_of(cores, 0, 1).cores, testing::ElementsAreArray(cores));
  const RankCores last = share_of(cores, 2, 3);
  EXPECT_THAT(last.cores, ElementsAre(2, 10));
  EXPECT_FALSE(last.even);
  EXPECT_EQ(last.threads(), 2);
}

TEST(CoresOfRanks, MoreRanksThanCoresShareAll) {
  const RankCores mine = share_of({4, 5}, 2, 3);
  EXPECT_THAT(mine.cores, ElementsAre(4, 5));
  EXPECT_EQ(mine.sharers, 3);
  EXPECT_EQ(mine.threads(), 1);
}

TEST(CoresOfRanks, OfALauncherThatBoundThisProcessAreItsOwn) {
  const auto all = cores_of_rank(0, 1).cores.size();
  {
    const Variable bound("OMPI_MCA_orte_bound_at_launch", "1");
    const RankCores mine = cores_of_rank(1, 2);
    EXPECT_TRUE(mine.given);
    EXPECT_EQ(mine.cores.size(), all);  // those of another rank are not among them
    // With all of the machine's cores they are the other rank's too.
    const bool whole = all == std::thread::hardware_concurrency();
    EXPECT_TRUE(!whole || mine.sharers == 2);
  }
  const Variable unbound("SLURM_CPU_BIND_TYPE", "none");
  EXPECT_FALSE(cores_of_rank(0, 2).given);
  const Variable masked("SLURM_CPU_BIND_TYPE", "mask_cpu:");
  EXPECT_TRUE(cores_of_rank(0, 2).given);
}

TEST(PinThreads, BindsTheCallingThreadToItsRanksCoresAndNoOther) {
  const std::vector<int> before = cores_of_this_thread();
  const RankCores mine = cores_of_rank(1, 2);
  if (mine.sharers > 1 || !mine.even) GTEST_SKIP() << "two ranks cannot share the cores evenly";
  std::vector<int> inside, started, off, placed;
  std::thread([&] {
    pin_threads("off", 1, 2, 1);
    off = cores_of_this_thread();
    {
      const Variable user("OMP_PROC_BIND", "false");
      pin_threads("on", 1, 2, 1);
      placed = cores_of_this_thread();
    }
    pin_threads("auto", 1, 2, 1);
    inside = cores_of_this_thread();
    std::thread([&] { started = cores_of_this_thread(); }).join();
  }).join();
  std::vector<int> expected = mine.cores;
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(off, before);
  EXPECT_EQ(placed, before);
  EXPECT_EQ(inside, expected);
  EXPECT_EQ(started, expected);
  EXPECT_EQ(cores_of_this_thread(), before);
}

TEST(PinThreads, LeavesARankThatIsAloneOnAFreeMachine) {
  const std::vector<int> before = cores_of_this_thread();
  std::thread([&] {
    pin_threads("auto", 0, 1, 2);
    EXPECT_EQ(cores_of_this_thread(), before);
    pin_threads("auto", 0, 100000, 1);  // more ranks than cores
    EXPECT_EQ(cores_of_this_thread(), before);
  }).join();
}

}  // namespace
}  // namespace ftrain::cpu
