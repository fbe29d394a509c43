// What a rank says to NCCL, and how it ends: in order, told by another rank, or by what NCCL met.
// The library and the GPUs are fakes.
#include <gmock/gmock.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"
#include "plugins/communicators/nccl/link.h"
#include "tests/plugins/communicators/nccl/fake_nccl.h"

namespace ftrain::nccl {
namespace {

using fake_nccl::world;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

void rest() {
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

class NcclLink : public testing::Test {
 protected:
  void SetUp() override { fake_nccl::reset(); }
  void TearDown() override { EXPECT_THAT(world().text(), Not(HasSubstr("misuse"))); }

  // Each rank's error; "": none.
  static std::vector<std::string> on_ranks(int size,
                                           const std::function<void(Communicator&, Link&)>& body) {
    static std::mutex mutex;
    static Registry registry({FTRAIN_PLUGINS});
    std::vector<std::string> errors(static_cast<std::size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        fake_nccl::set_rank(rank);
        std::unique_ptr<Communicator> local;
        {
          const std::lock_guard lock(mutex);
          local = registry.create<Communicator>("local", Table::empty("launch"));
        }
        local->connect({.rank = rank, .size = size, .host = "a", .job = "nccl"});
        try {
          Link link(local->place());
          body(*local, link);
        } catch (const std::exception& error) {
          errors[static_cast<std::size_t>(rank)] = error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return errors;
  }
  // On one rank that has joined.
  static std::string alone(const std::function<void(Link&)>& body) {
    return on_ranks(1, [&](Communicator& c, Link& link) {
      link.join(c);
      body(link);
    })[0];
  }
};

TEST_F(NcclLink, EnqueuesInGroupsAndEndsInOrder) {
  float x[8] = {};
  EXPECT_EQ(alone([&](Link& link) {
              link.begin_group();
              link.all_reduce(x, 3, DType::f32, Reduction::sum, nullptr);
              link.all_reduce(x, 2, DType::i64, Reduction::max, nullptr);
              link.end_group();
              link.all_gather(x, x, 5, nullptr);
              link.reduce_scatter(x, x, 4, DType::f32, nullptr);
              link.broadcast(x, 6, 0, nullptr);
              bool waited = false;
              link.wait([&] { waited = true; });
              EXPECT_TRUE(waited);
            }),
            "");
  EXPECT_EQ(world().text(),
            "init 0/1, group, all_reduce 3 of " + std::to_string(ncclFloat32) +
                ", all_reduce 2 of " + std::to_string(ncclInt64) +
                " max, end, group, all_gather 5, end, group, reduce_scatter 4, end, group, "
                "broadcast 6 from 0, end, finalize, destroy");
}

TEST_F(NcclLink, JoinsAllRanksByOneNumber) {
  const auto errors = on_ranks(3, [](Communicator& c, Link& link) {
    link.join(c);
    c.barrier();
  });
  EXPECT_THAT(errors, testing::Each(""));
  for (const char* rank : {"init 0/3", "init 1/3", "init 2/3"}) {
    EXPECT_THAT(world().text(), HasSubstr(rank));
  }
}

TEST_F(NcclLink, RefusesRanksWithTheSameGpu) {
  world().same_gpu = true;
  const auto errors = on_ranks(2, [](Communicator& c, Link& link) { link.join(c); });
  for (const std::string& error : errors) {
    EXPECT_THAT(error, HasSubstr("rank 0 on a and rank 1 on a have the same GPU (0000:00:00.0)"));
  }
  EXPECT_EQ(world().text(), "");
}

// A rank waits in a collective for one that failed.
TEST_F(NcclLink, IsEndedFromAnotherThread) {
  float x[8] = {};
  const std::string error = alone([&](Link& link) {
    link.all_reduce(x, 8, DType::f32, Reduction::sum, nullptr);
    std::thread other([&] {
      rest();
      link.abort("the disk is full");
      link.abort("another reason");
    });
    std::string said;
    try {
      link.wait([&] { other.join(); });
    } catch (const CommunicationError& error) {
      said = error.what();
    }
    EXPECT_THAT(said, AllOf(HasSubstr("rank 0 on a: "), HasSubstr("the disk is full"),
                            HasSubstr("all_reduce of 32 bytes"), Not(HasSubstr("another"))));
    EXPECT_THROW(link.begin_group(), CommunicationError);
    link.broadcast(x, 4, 0, nullptr);
  });
  EXPECT_THAT(error, HasSubstr("the disk is full"));
  EXPECT_THAT(world().text(), AllOf(testing::EndsWith(", abort"), Not(HasSubstr("destroy"))));
}

// What a device says of kernels that were ended is only what came of it.
TEST_F(NcclLink, TellsTheReasonAndNotWhatCameOfIt) {
  EXPECT_THAT(alone([&](Link& link) {
                link.wait([&] {
                  link.abort("rank 1 failed");
                  throw DeviceError("a kernel was ended");
                });
              }),
              HasSubstr("rank 1 failed"));
  EXPECT_EQ(alone([&](Link& link) { link.wait([] { throw DeviceError("the GPU is gone"); }); }),
            "the GPU is gone");
}

TEST_F(NcclLink, IsEndedWhileItJoins) {
  world().init_hangs = true;
  const auto errors = on_ranks(1, [](Communicator& c, Link& link) {
    std::thread other([&] {
      rest();
      link.abort("rank 1 died");
    });
    try {
      link.join(c);
    } catch (...) {
      other.join();
      throw;
    }
    other.join();
  });
  EXPECT_THAT(errors[0], AllOf(HasSubstr("rank 1 died"), HasSubstr("the meeting of 1 GPUs")));
  EXPECT_EQ(world().text(), "init 0/1, abort");
}

// Nobody calls NCCL while the rank waits for its GPU: the link's own thread asks.
TEST_F(NcclLink, FindsWhatNcclMet) {
  float x[8] = {};
  const std::string error = alone([&](Link& link) {
    link.all_gather(x, x, 4, nullptr);
    link.wait([] {
      world().trouble = ncclRemoteError;
      while (world().text().find("abort") == std::string::npos) rest();
    });
  });
  EXPECT_THAT(
      error, AllOf(HasSubstr("rank 0 on a: "), HasSubstr("remote process exited"),
                   HasSubstr("connection closed by 10.0.0.2"), HasSubstr("all_gather of 4 bytes")));
}

TEST_F(NcclLink, TellsOfACollectiveThatNcclRefuses) {
  float x[8] = {};
  const std::string error = alone([&](Link& link) {
    world().collective = ncclInvalidUsage;
    link.begin_group();
    try {
      link.all_reduce(x, 8, DType::f32, Reduction::sum, nullptr);
      ADD_FAILURE() << "it was taken";
    } catch (const CommunicationError&) {
      link.abort("no deadlock");
      throw;
    }
  });
  EXPECT_THAT(error, AllOf(HasSubstr("some error"), HasSubstr("all_reduce of 32 bytes")));
  EXPECT_EQ(world().text(),
            "init 0/1, group, all_reduce 8 of " + std::to_string(ncclFloat32) + ", end, abort");
}

TEST_F(NcclLink, RefusesTypesThatNcclDoesNotSum) {
  EXPECT_THAT(
      alone([](Link& link) { link.all_reduce(nullptr, 1, DType::u8, Reduction::sum, nullptr); }),
      HasSubstr("does not sum u8"));
}

}  // namespace
}  // namespace ftrain::nccl
