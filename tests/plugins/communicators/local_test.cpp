// Collectives of ranks that are threads.
#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/base/error.h"
#include "core/config/table.h"
#include "core/plugin/registry.h"
#include "core/runtime/communicator.h"

namespace ftrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

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

TEST_P(Local, SumsAndTakesTheLargestInEveryType) {
  const int size = GetParam();
  on_ranks(size, [&](Communicator& c) {
    EXPECT_EQ(c.size(), size);
    const auto check = [&]<class T>(T) {
      std::vector<T> values(1000), largest(3);
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<T>(c.rank() + 1) * static_cast<T>(i);
      }
      for (std::size_t i = 0; i < 3; ++i) largest[i] = static_cast<T>(c.rank() - 5);
      c.all_reduce(values.data(), 1000, dtype_of<T>, Reduction::sum);
      c.all_reduce(largest.data(), 3, dtype_of<T>, Reduction::max);
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], static_cast<T>(size * (size + 1) / 2) * static_cast<T>(i));
      }
      EXPECT_EQ(largest[2], static_cast<T>(size - 6));
    };
    check(float{});
    check(double{});
    check(std::int64_t{});
  });
}

TEST_P(Local, EveryRankGetsTheSameBits) {
  const int size = GetParam();
  std::vector<std::vector<float>> all(static_cast<std::size_t>(size));
  on_ranks(size, [&](Communicator& c) {
    std::vector<float> values(257);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 1.0f / static_cast<float>(3 * i + 7 * static_cast<std::size_t>(c.rank()) + 1);
    }
    c.all_reduce(values.data(), 257, DType::f32, Reduction::sum);
    all[static_cast<std::size_t>(c.rank())] = values;
  });
  for (const auto& values : all) EXPECT_EQ(values, all[0]);
}

TEST_P(Local, GathersScattersAndBroadcasts) {
  const int size = GetParam();
  on_ranks(size, [&](Communicator& c) {
    const std::array<std::int32_t, 2> mine{c.rank(), 10 * c.rank()};
    std::vector<std::int32_t> all(2 * static_cast<std::size_t>(size));
    c.all_gather(mine.data(), all.data(), sizeof(mine));
    for (int r = 0; r < size; ++r) {
      EXPECT_EQ(all[2 * static_cast<std::size_t>(r)], r);
      EXPECT_EQ(all[2 * static_cast<std::size_t>(r) + 1], 10 * r);
    }
    std::vector<double> parts(3 * static_cast<std::size_t>(size));
    std::iota(parts.begin(), parts.end(), c.rank());
    std::vector<double> sum(3);
    c.reduce_scatter(parts.data(), sum.data(), 3, DType::f64);
    const double ranks = size * (size - 1) / 2.0;
    EXPECT_EQ(sum[1], size * (3 * c.rank() + 1) + ranks);
    for (int root = 0; root < size; ++root) {
      std::int64_t word = c.rank() * 100;
      c.broadcast(&word, sizeof(word), root);
      EXPECT_EQ(word, root * 100);
    }
    c.barrier();
  });
}

TEST(LocalSplit, GroupsByColorAndOrdersByKeyThenRank) {
  on_ranks(5, [](Communicator& c) {
    for (int round = 0; round < 3; ++round) {
      const int color = c.rank() % 2;
      // Even ranks in reverse order, odd ones with equal keys.
      const auto part = c.split(color, color == 0 ? -c.rank() : 7);
      EXPECT_EQ(part->size(), color == 0 ? 3 : 2);
      std::vector<int> members(static_cast<std::size_t>(part->size()));
      const int me = c.rank();
      part->all_gather(&me, members.data(), sizeof(me));
      if (color == 0) {
        EXPECT_THAT(members, ElementsAre(4, 2, 0));
      } else {
        EXPECT_THAT(members, ElementsAre(1, 3));
      }
    }
  });
}

TEST(LocalAbort, WakesThoseWhoWaitAndRefusesWhoComesLater) {
  std::atomic<int> stopped = 0;
  on_ranks(4, [&](Communicator& c) {
    if (c.rank() == 2) {
      c.abort("rank 2: the disk is full");
      EXPECT_THROW(c.barrier(), CommunicationError);
      ++stopped;
      return;
    }
    float value = 0;
    try {
      c.all_reduce(&value, 1, DType::f32, Reduction::sum);
      ADD_FAILURE() << "rank " << c.rank() << " was not stopped";
    } catch (const CommunicationError& error) {
      EXPECT_THAT(error.what(), HasSubstr("rank " + std::to_string(c.rank()) + ":"));
      EXPECT_THAT(error.what(), HasSubstr("the disk is full"));
      ++stopped;
    }
  });
  EXPECT_EQ(stopped, 4);
}

TEST(LocalAbort, WakesThoseWhoWaitInAPart) {
  std::atomic<int> stopped = 0;
  on_ranks(3, [&](Communicator& c) {
    const auto part = c.split(0, 0);
    if (c.rank() == 0) {
      c.abort("no more");
      ++stopped;
      return;
    }
    try {
      part->barrier();
    } catch (const CommunicationError&) {
      ++stopped;
    }
  });
  EXPECT_EQ(stopped, 3);
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
