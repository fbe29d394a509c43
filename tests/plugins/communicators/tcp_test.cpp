// Ranks over TCP: as threads, as processes, and what happens when one is killed, ends or errs.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/plugins/communicators/conformance.h"
#include "tests/plugins/communicators/tcp_ranks.h"

namespace ftrain {
namespace {

using namespace tcp_ranks;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

// A rank in a process of its own; what fails in it fails the test.
pid_t start_process(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  body();
  ::_exit(testing::Test::HasFailure() ? 1 : 0);
}

int status_of(pid_t pid) {
  int status = -1;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

class Tcp : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Tcp, testing::Values(1, 2, 3, 4));

TEST_P(Tcp, KeepsToWhatCommunicatorsDo) {
  expect_no_errors(
      on_threads(GetParam(), [](Communicator& c) { conformance::expect_conformance(c); }));
}

TEST_P(Tcp, StopsAllRanksWhereOneGivesUp) {
  for (const bool in_part : {false, true}) {
    expect_no_errors(
        on_threads(GetParam(), [&](Communicator& c) { conformance::expect_abort(c, in_part); }));
  }
}

TEST(TcpProcesses, KeepToWhatCommunicatorsDo) {
  const Port port;
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.push_back(start_process([&] {
      EXPECT_EQ(run_rank(place_of(rank, 3, port),
                         [](Communicator& c) { conformance::expect_conformance(c); }),
                "");
    }));
  }
  for (const pid_t pid : ranks) EXPECT_EQ(status_of(pid), 0);
}

// One is killed while it, or somebody, is in the middle of a long exchange.
TEST(TcpProcesses, NameTheOneThatWasKilled) {
  for (const bool while_sending : {true, false}) {
    const Port port;
    std::vector<pid_t> ranks;
    for (int rank = 0; rank < 4; ++rank) {
      ranks.push_back(start_process([&] {
        std::vector<float> values(3'000'000);
        const auto error = run_rank(place_of(rank, 4, port), [&](Communicator& c) {
          c.barrier();
          if (c.rank() == 2 && !while_sending) ::raise(SIGKILL);
          for (int turn = 0;; ++turn) {
            if (c.rank() == 2 && turn == 2) {
              std::thread([] {
                std::this_thread::sleep_for(milliseconds(1));
                ::raise(SIGKILL);
              }).detach();
            }
            c.all_reduce(values.data(), 3'000'000, DType::f32, Reduction::sum);
          }
        });
        EXPECT_THAT(error, AllOf(HasSubstr("rank " + std::to_string(rank) + " on node0"),
                                 HasSubstr("rank 2 on node02 ended its connection")));
      }));
    }
    for (int rank = 0; rank < 4; ++rank) {
      const int status = status_of(ranks[static_cast<std::size_t>(rank)]);
      if (rank == 2) {
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      } else {
        EXPECT_EQ(status, 0) << "rank " << rank;
      }
    }
  }
}

TEST(TcpCalls, OfDifferentSizesAreNamed) {
  const auto errors = on_threads(2, [](Communicator& c) {
    std::vector<float> values(2000);
    c.barrier();
    c.all_reduce(values.data(), c.rank() == 0 ? 100 : 2000, DType::f32, Reduction::sum);
  });
  for (const std::string& error : errors) {
    EXPECT_THAT(error,
                AllOf(HasSubstr("all_reduce of 400 bytes of f32 (sum)"),
                      HasSubstr("all_reduce of 8000 bytes of f32 (sum)"),
                      HasSubstr("rank 0 on node00 called"), HasSubstr("rank 1 on node01 called")));
  }
}

TEST(TcpCalls, OfDifferentKindsAreNamed) {
  const auto errors = on_threads(3, [](Communicator& c) {
    std::vector<float> values(6);
    if (c.rank() == 2) {
      c.all_gather(&values[0], &values[1], 4);
    } else {
      c.all_reduce(values.data(), 2, DType::f32, Reduction::max);
    }
  });
  for (const std::string& error : errors) {
    EXPECT_THAT(error, AllOf(HasSubstr("rank 2 on node02 called all_gather of 4 bytes"),
                             HasSubstr("called all_reduce of 8 bytes of f32 (max)")));
  }
}

// Rank 2 waits for rank 0, which sends to rank 1 alone; rank 1 sends to rank 2, which does not
// read.
TEST(TcpCalls, ThatWaitForTheWrongRankAreNamed) {
  const auto errors = on_threads(3, [](Communicator& c) {
    std::vector<std::byte> values(1 << 20);
    c.broadcast(values.data(), c.rank() == 2 ? 16 : values.size(), 0);
    c.barrier();
  });
  EXPECT_THAT(errors[2], AllOf(HasSubstr("broadcast of 16 bytes from rank 0"),
                               HasSubstr("broadcast of 1048576 bytes from rank 0")));
  EXPECT_THAT(errors[1], HasSubstr("broadcast of 16 bytes"));
}

TEST(TcpEnd, OfOneIsNoFailureOfThoseWhoGoOn) {
  expect_no_errors(on_threads(4, [](Communicator& c) {
    auto part = c.split(c.rank() == 3, 0);
    if (c.rank() == 3) return;
    std::this_thread::sleep_for(milliseconds(100));
    std::vector<double> values(100'000, 1.0);
    for (int i = 0; i < 5; ++i) {
      part->all_reduce(values.data(), 100'000, DType::f64, Reduction::sum);
    }
    EXPECT_EQ(values.back(), 243.0);
  }));
}

TEST(TcpEnd, OfOneThatOthersWaitForIsNamed) {
  const auto errors = on_threads(3, [](Communicator& c) {
    c.barrier();
    if (c.rank() != 1) c.barrier();
  });
  EXPECT_EQ(errors[1], "");
  EXPECT_THAT(errors[0], HasSubstr("rank 1 on node01 has ended"));
  EXPECT_THAT(errors[2], HasSubstr("barrier"));
}

// All sizes around those where the ways of doing it change, with an odd number of ranks.
TEST(TcpSizes, AroundPieces) {
  expect_no_errors(on_threads(3, [](Communicator& c) {
    for (const std::int64_t pieces : {1, 3, 9, 10}) {
      for (const std::int64_t more : {-1, 0, 1, 2}) {
        const std::int64_t count = pieces * 65536 + more;
        std::vector<float> values(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < values.size(); ++i) {
          values[i] = static_cast<float>(i % 4099 + static_cast<std::size_t>(c.rank()));
        }
        c.all_reduce(values.data(), count, DType::f32, Reduction::sum);
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
          wrong += values[i] != static_cast<float>(3 * (i % 4099) + 3);
        }
        EXPECT_EQ(wrong, 0) << count;
      }
    }
  }));
}

// Time on the processor, not on the clock.
TEST(TcpWait, Sleeps) {
  expect_no_errors(on_threads(2, [](Communicator& c) {
    if (c.rank() == 0) std::this_thread::sleep_for(milliseconds(600));
    c.barrier();
    if (c.rank() == 0) return;
    rusage usage{};
    ASSERT_EQ(::getrusage(RUSAGE_THREAD, &usage), 0);
    EXPECT_LT(usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec +
                  usage.ru_stime.tv_sec * 1'000'000 + usage.ru_stime.tv_usec,
              300'000);
  }));
}

}  // namespace
}  // namespace ftrain
