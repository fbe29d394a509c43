// Watched ranks that are threads of one process.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/health/monitor.h"
#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::unique_ptr<Communicator> local(int rank, int size) {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  std::unique_ptr<Communicator> made;
  {
    const std::lock_guard lock(mutex);
    made = registry.create<Communicator>("local", Table::empty("launch"));
  }
  RankPlace place;
  place.rank = rank;
  place.size = size;
  place.host = "test";
  made->connect(place);
  return made;
}

// What a rank's body threw.
struct Outcome {
  std::string text;
  bool peer = false;  // a PeerError
};

std::vector<Outcome> on_ranks(int size, const WatchOptions& options,
                              const std::function<void(Communicator&)>& body) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Outcome& outcome = outcomes[static_cast<std::size_t>(rank)];
      try {
        WatchedCommunicator watched(local(rank, size), options);
        body(watched);
      } catch (const PeerError& error) {
        outcome = {error.what(), true};
      } catch (const std::exception& error) {
        outcome = {error.what(), false};
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

void sum(Communicator& c) {
  std::vector<float> values(1024, 1.0f);
  c.all_reduce(values.data(), 1024, DType::f32, Reduction::sum);
  EXPECT_EQ(values[1023], static_cast<float>(c.size()));
}

TEST(Watch, PassesEveryCollectiveOn) {
  const auto outcomes = on_ranks(3, {}, [](Communicator& c) {
    EXPECT_EQ(c.place().host, "test");
    sum(c);
    const int mine = c.rank();
    std::vector<int> all(3);
    c.all_gather(&mine, all.data(), sizeof mine);
    EXPECT_THAT(all, testing::ElementsAre(0, 1, 2));
    const std::vector<double> parts{1, 2, 3};
    double part = 0;
    c.reduce_scatter(parts.data(), &part, 1, DType::f64);
    EXPECT_EQ(part, 3 * (c.rank() + 1));
    int word = c.rank() + 7;
    c.broadcast(&word, sizeof word, 2);
    EXPECT_EQ(word, 9);
    c.working_on({"the parts"});
    const auto part_of = c.split(c.rank() == 2, 0);
    EXPECT_EQ(part_of->size(), c.rank() == 2 ? 1 : 2);
    sum(*part_of);
    c.barrier();
  });
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.text, "");
}

TEST(Watch, APartMayOutliveTheWhole) {
  const auto outcomes = on_ranks(2, {}, [](Communicator& c) {
    std::unique_ptr<Communicator> part;
    {
      WatchedCommunicator inside(c.split(0, c.rank()), {});
      part = inside.split(0, c.rank());
    }
    sum(*part);
  });
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.text, "");
}

TEST(Watch, OneRankHasNothingToWatch) {
  const auto outcomes = on_ranks(1, {.timeout = 0.1}, [](Communicator& c) {
    sum(c);
    c.working_on({"nothing"});
    c.barrier();
  });
  EXPECT_EQ(outcomes[0].text, "");
}

TEST(Watch, AFailedRanksReasonReachesAll) {
  for (const int failing : {0, 2}) {
    const auto outcomes = on_ranks(3, {}, [&](Communicator& c) {
      sum(c);
      if (c.rank() == failing) {
        c.abort("no such file: lfw.rec");
        throw DataError("no such file: lfw.rec");
      }
      c.barrier();
    });
    for (int r = 0; r < 3; ++r) {
      const Outcome& outcome = outcomes[static_cast<std::size_t>(r)];
      EXPECT_EQ(outcome.peer, r != failing) << outcome.text;
      if (r == failing) {
        EXPECT_EQ(outcome.text, "no such file: lfw.rec");
      } else {
        EXPECT_THAT(outcome.text, AllOf(StartsWith("rank " + std::to_string(failing) + " on test"),
                                        HasSubstr("failed: no such file: lfw.rec")));
      }
    }
  }
}

TEST(Watch, AnErrorThatEndsARanksScopeIsAFailure) {
  const auto outcomes = on_ranks(2, {}, [](Communicator& c) {
    sum(c);
    if (c.rank() == 1) throw DataError("never told");
    c.barrier();
  });
  EXPECT_TRUE(outcomes[0].peer);
  EXPECT_THAT(outcomes[0].text, HasSubstr("rank 1 on test"));
  EXPECT_EQ(outcomes[1].text, "never told");
}

TEST(Watch, ARankThatDoesNotComeIsNamed) {
  for (const int late : {0, 1}) {
    std::atomic<int> told = 0;
    const auto outcomes = on_ranks(3, {.timeout = 0.5, .grace = 60}, [&](Communicator& c) {
      sum(c);
      if (c.rank() == late) {
        c.working_on({"reading data", 3});
        while (told < 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      try {
        c.barrier();
      } catch (const CommunicationError&) {
        ++told;
        throw;
      }
    });
    for (int r = 0; r < 3; ++r) {
      const Outcome& outcome = outcomes[static_cast<std::size_t>(r)];
      // Rank 0 speaks of one that hangs.
      EXPECT_EQ(outcome.peer, r != 0);
      EXPECT_THAT(outcome.text,
                  AllOf(StartsWith("rank " + std::to_string(late) + " on test"),
                        HasSubstr("keeps the others waiting"), HasSubstr("step 3: reading data"),
                        HasSubstr("collective 1, all_reduce of 4.0 KiB")));
    }
  }
}

TEST(Watch, GoodbyeIsNoFailure) {
  const auto outcomes = on_ranks(3, {.timeout = 1}, [](Communicator& c) {
    sum(c);
    const auto part = c.split(c.rank() == 2, 0);
    if (c.rank() == 2) return;
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      sum(*part);
    }
  });
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.text, "");
}

TEST(Watch, WaitingForARankThatHasLeftEnds) {
  for (const int leaving : {0, 1}) {
    const auto outcomes = on_ranks(3, {.timeout = 0.5, .grace = 60}, [&](Communicator& c) {
      sum(c);
      if (c.rank() != leaving) c.barrier();
    });
    EXPECT_THAT(outcomes[2].text, AllOf(StartsWith("rank " + std::to_string(leaving) + " on test"),
                                        HasSubstr("has ended its part")));
  }
}

// What it was told fails, here and alone.
class Breaking final : public Communicator {
 public:
  explicit Breaking(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}
  void connect(const RankPlace& place) override { inner_->connect(place); }
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const RankPlace& place() const override { return inner_->place(); }
  void all_reduce(void*, std::int64_t, DType, Reduction) override {
    throw CommunicationError("the cable is cut");
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    inner_->all_gather(in, out, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    inner_->reduce_scatter(in, out, count, dtype);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    inner_->broadcast(data, bytes, root);
  }
  void barrier() override { inner_->barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return inner_->split(color, key);
  }
  void abort(const std::string& reason) override { inner_->abort(reason); }

 private:
  std::unique_ptr<Communicator> inner_;
};

TEST(Watch, AFailedCollectiveIsToldToAll) {
  for (const int broken : {0, 1}) {
    std::vector<Outcome> outcomes(3);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&, rank] {
        WatchedCommunicator watched(std::make_unique<Breaking>(local(rank, 3)), {});
        try {
          if (rank == broken) sum(watched);
          watched.barrier();
        } catch (const PeerError& error) {
          outcomes[static_cast<std::size_t>(rank)] = {error.what(), true};
        } catch (const CommunicationError& error) {
          outcomes[static_cast<std::size_t>(rank)] = {error.what(), false};
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int r = 0; r < 3; ++r) {
      const Outcome& outcome = outcomes[static_cast<std::size_t>(r)];
      EXPECT_EQ(outcome.peer, r != broken);
      EXPECT_THAT(outcome.text, HasSubstr("the cable is cut"));
      EXPECT_EQ(outcome.text.starts_with("rank " + std::to_string(broken) + " on test"),
                r != broken);
    }
  }
}

}  // namespace
}  // namespace ftrain
