// Ranks with a GPU each, as far as NCCL's library goes without one: carried by TCP, how they meet,
// and what those without a GPU or with the same one are told.
#include <gmock/gmock.h>

#ifndef FTRAIN_NCCL

TEST(Nccl, IsNotBuiltHere) {
  GTEST_SKIP() << "built without nvcc or NCCL";
}

#else

#include <cuda_runtime_api.h>

#include <atomic>

#include "plugins/communicators/nccl/meeting.h"
#include "tests/plugins/communicators/conformance.h"
#include "tests/plugins/communicators/tcp_ranks.h"

namespace ftrain {
namespace {

using nccl::Seat;
using tcp_ranks::Port;
using testing::AllOf;
using testing::HasSubstr;

bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

std::unique_ptr<Communicator> make() {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  const std::lock_guard lock(mutex);
  return registry.create<Communicator>("nccl", Table::empty("launch"));
}

// Each rank's error; "": none.
std::vector<std::string> on_ranks(int size, const tcp_ranks::Body& body) {
  const Port port;
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const auto communicator = make();
        communicator->carry_by(tcp_ranks::make());
        communicator->connect(tcp_ranks::place_of(rank, size, port));
        body(*communicator);
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

class Nccl : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Nccl, testing::Values(1, 3));

TEST_P(Nccl, ConformsByItsCarrier) {
  tcp_ranks::expect_no_errors(on_ranks(GetParam(), conformance::expect_conformance));
}

TEST_P(Nccl, AbortStopsEveryRank) {
  for (const bool in_part : {false, true}) {
    tcp_ranks::expect_no_errors(
        on_ranks(GetParam(), [&](Communicator& c) { conformance::expect_abort(c, in_part); }));
  }
}

TEST(NcclCarrier, IsWantedByNcclAlone) {
  const auto communicator = make();
  EXPECT_TRUE(communicator->needs_carrier());
  EXPECT_THROW(communicator->connect({}), CommunicationError);
  const auto tcp = tcp_ranks::make();
  EXPECT_FALSE(tcp->needs_carrier());
  EXPECT_THROW(tcp->carry_by(make()), CommunicationError);
  EXPECT_EQ(tcp->device_collectives(), nullptr);
}

TEST(NcclMeeting, SaysWhichRankHasNoGpuAndLeavesTheOthersTogether) {
  if (has_gpu()) GTEST_SKIP() << "there is a GPU here";
  const auto errors = on_ranks(3, [](Communicator& c) {
    std::string said;
    bool heard = false;
    try {
      c.device_collectives();
      ADD_FAILURE() << "rank " << c.rank() << " has collectives between GPUs";
    } catch (const PeerError& error) {
      said = error.what();
      heard = true;
    } catch (const DeviceError& error) {
      said = error.what();
    }
    EXPECT_EQ(heard, c.rank() != 0);
    EXPECT_THAT(said, AllOf(HasSubstr("rank 0 on node00 has no GPU"), HasSubstr("driver"),
                            HasSubstr("communicator = \"mpi\"")));
    c.barrier();
  });
  tcp_ranks::expect_no_errors(errors);
}

// The library makes the number without a driver; how the GPUs come together by it needs them.
TEST(NcclMeeting, GivesAllRanksOneNumber) {
  const auto errors = tcp_ranks::on_threads(3, [](Communicator& c) {
    const Seat seat{.rank = c.place().text(),
                    .machine = "a",
                    .gpu = "0000:0" + std::to_string(c.rank()) + ":00.0",
                    .reason = {}};
    const ncclUniqueId id = nccl::meet(c, seat);
    const std::string mine(id.internal, sizeof id.internal);
    EXPECT_NE(mine, std::string(sizeof id.internal, '\0'));
    for (const std::string& other : gather_texts(c, mine)) EXPECT_EQ(other, mine);
  });
  tcp_ranks::expect_no_errors(errors);
}

std::string refusal(const std::vector<Seat>& seats, int rank) {
  try {
    nccl::check_seats(seats, rank);
  } catch (const PeerError& error) {
    return std::string("heard: ") + error.what();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "none";
}

TEST(NcclMeeting, NamesTwoRanksWithTheSameGpu) {
  const std::vector<Seat> seats{{"rank 0 on a", "1", "0000:17:00.0", ""},
                                {"rank 1 on a", "1", "0000:65:00.0", ""},
                                {"rank 2 on b", "2", "0000:17:00.0", ""},
                                {"rank 3 on a", "1", "0000:65:00.0", ""}};
  EXPECT_THAT(refusal(seats, 1),
              testing::StartsWith("rank 1 on a and rank 3 on a have the same GPU (0000:65:00.0)"));
  for (const int rank : {0, 2, 3}) {
    EXPECT_THAT(refusal(seats, rank), testing::StartsWith("heard: rank 1 on a and rank 3 on a"));
  }
  EXPECT_EQ(refusal({seats[0], seats[1], seats[2]}, 0), "none");
  EXPECT_THAT(refusal({seats[0], {"rank 1 on a", "1", "", "no CUDA-capable device"}}, 1),
              testing::StartsWith("rank 1 on a has no GPU"));
}

TEST(NcclErrors, AreInNcclsOwnWords) {
  EXPECT_THAT(nccl::text_of(ncclInvalidArgument, nullptr), HasSubstr("invalid argument"));
}

}  // namespace
}  // namespace ftrain

#endif
