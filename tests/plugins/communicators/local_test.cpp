// Collectives of ranks that are threads.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/plugin/registry.h"
#include "tests/plugins/communicators/conformance.h"

namespace ftrain {
namespace {

std::unique_ptr<Communicator> make() {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  const std::lock_guard lock(mutex);
  return registry.create<Communicator>("local", Table::empty("launch"));
}

void on_ranks(int size, const std::function<void(Communicator&)>& body,
              const std::string& job = "test") {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      const auto communicator = make();
      communicator->connect({.rank = rank, .size = size, .job = job});
      body(*communicator);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class Local : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Local, testing::Values(1, 2, 3, 4, 7));

TEST_P(Local, Conforms) {
  on_ranks(GetParam(), conformance::expect_conformance);
}

TEST_P(Local, AbortStopsEveryRank) {
  on_ranks(GetParam(), [](Communicator& c) { conformance::expect_abort(c, false); });
  on_ranks(GetParam(), [](Communicator& c) { conformance::expect_abort(c, true); });
}

TEST(LocalAbort, RefusesWhoComesLater) {
  on_ranks(2, [](Communicator& c) {
    if (c.rank() == 1) return c.abort("rank 1: the disk is full");
    EXPECT_THROW(c.barrier(), CommunicationError);
    EXPECT_THROW(c.split(0, 0), CommunicationError);
  });
}

TEST(LocalConnect, KeepsJobsApart) {
  std::atomic<int> sum = 0;
  std::thread other([&] {
    on_ranks(
        2, [&](Communicator& c) { sum += c.size(); }, "other");
  });
  on_ranks(3, [&](Communicator& c) { sum += c.size(); });
  other.join();
  EXPECT_EQ(sum, 2 * 2 + 3 * 3);
}

TEST(LocalCollectives, RefuseTypesThatTheyCannotSum) {
  on_ranks(1, [](Communicator& c) {
    std::int32_t value = 0;
    EXPECT_THROW(c.all_reduce(&value, 1, DType::i32, Reduction::sum), CommunicationError);
    EXPECT_THROW(c.reduce_scatter(&value, &value, 1, DType::i64), CommunicationError);
  });
}

}  // namespace
}  // namespace ftrain
