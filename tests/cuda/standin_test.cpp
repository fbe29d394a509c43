// The stand-in for a GPU: right kernels give right results in every order of threads, and whatever
// CUDA leaves undefined is found and named.
#include "tests/cuda/standin/standin.h"

#include <cuda_bf16.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "plugins/devices/cuda/ops/kernels/shared.cuh"
#include "plugins/devices/cuda/ops/kernels/warp.cuh"
#include "plugins/devices/cuda/runtime/launch.h"

namespace ftrain::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::vector<standin::Settings> all_orders{{standin::Order::forward, 1},
                                                {standin::Order::reverse, 1},
                                                {standin::Order::shuffled, 1},
                                                {standin::Order::shuffled, 2}};

// What a launch is refused for; empty: nothing.
template <class F>
std::string misuse(const F& f) {
  standin::set({});
  try {
    f();
  } catch (const standin::Misuse& error) {
    return error.what();
  }
  return {};
}

class StandIn : public testing::Test {
 protected:
  ~StandIn() override { standin::set({}); }
};

// Tests of what only instrumented code shows.
class StandInAccesses : public StandIn {
 protected:
  void SetUp() override {
    if (!standin::sees_accesses()) GTEST_SKIP() << "AddressSanitizer watches in this build";
  }
};

// ---- kernels as they should be
__global__ void sums(const float* x, int count, float* y) {
  float sum = 0;
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < count;
       i += static_cast<int>(gridDim.x * blockDim.x)) {
    sum += x[i];
  }
  const float total = block_sum(sum, shared_memory<float>());
  if (threadIdx.x == 0) y[blockIdx.x] = total;
}

__global__ void scan(int* x) {
  int* const shared = shared_memory<int>();
  const unsigned i = threadIdx.x;
  shared[i] = x[blockIdx.x * blockDim.x + i];
  __syncthreads();
  for (unsigned by = 1; by < blockDim.x; by *= 2) {
    const int left = i >= by ? shared[i - by] : 0;
    __syncthreads();
    shared[i] += left;
    __syncthreads();
  }
  x[blockIdx.x * blockDim.x + i] = shared[i];
}

__global__ void counts(const int* x, int count, int* histogram, int* largest, float* all) {
  int* const shared = shared_memory<int>();
  if (threadIdx.x < 8) shared[threadIdx.x] = 0;
  __syncthreads();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) {
    atomicAdd(shared + x[i] % 8, 1);
    atomicMax(largest, x[i]);
    atomicAdd(all, 1.0f);
  }
  __syncthreads();
  if (threadIdx.x < 8) atomicAdd(histogram + threadIdx.x, shared[threadIdx.x]);
}

__global__ void votes(unsigned* y) {
  const unsigned lane = threadIdx.x % 32;
  y[threadIdx.x] = __ballot_sync(all_lanes, lane % 3 == 0);
  y[threadIdx.x] += static_cast<unsigned>(__any_sync(all_lanes, lane == 5)) << 30;
  y[threadIdx.x] += static_cast<unsigned>(__all_sync(all_lanes, lane < 31)) << 31;
  // Halves go their own ways.
  if (lane < 16) {
    y[threadIdx.x] ^= __shfl_down_sync(0x0000ffffu, lane, 1, 16) << 24;
  } else {
    y[threadIdx.x] ^= __shfl_xor_sync(0xffff0000u, lane, 1) << 24;
  }
  __syncwarp();
  y[threadIdx.x] += static_cast<unsigned>(__syncthreads_count(lane == 1));
}

TEST_F(StandIn, BlockReductionsAreRightInEveryOrder) {
  std::vector<float> x(1000);
  std::iota(x.begin(), x.end(), 1.0f);
  for (const standin::Settings& settings : all_orders) {
    standin::set(settings);
    std::vector<float> y(3);
    launch(sums, Grid{.blocks = {3}, .threads = 128, .shared = block_reduce_bytes<float>(128)},
           nullptr, x.data(), 1000, y.data());
    EXPECT_EQ(y[0] + y[1] + y[2], 500500.0f);
  }
}

TEST_F(StandIn, ScansAreRightInEveryOrder) {
  for (const standin::Settings& settings : all_orders) {
    standin::set(settings);
    std::vector<int> x(1024, 1);
    launch(scan, Grid{.blocks = {2}, .threads = 512, .shared = 2048}, nullptr, x.data());
    for (int i = 0; i < 1024; ++i) ASSERT_EQ(x[static_cast<std::size_t>(i)], i % 512 + 1);
  }
}

TEST_F(StandIn, AtomicsAreRightInEveryOrder) {
  std::vector<int> x(500);
  std::iota(x.begin(), x.end(), 0);
  for (const standin::Settings& settings : all_orders) {
    standin::set(settings);
    std::vector<int> histogram(8);
    int largest = 0;
    float all = 0;
    launch(counts, Grid{.blocks = {8}, .threads = 64, .shared = 32}, nullptr, x.data(), 500,
           histogram.data(), &largest, &all);
    EXPECT_THAT(histogram, testing::ElementsAre(63, 63, 63, 63, 62, 62, 62, 62));
    EXPECT_EQ(largest, 499);
    EXPECT_EQ(all, 500.0f);
  }
}

TEST_F(StandIn, VotesAndShufflesAreRightInEveryOrder) {
  for (const standin::Settings& settings : all_orders) {
    standin::set(settings);
    std::vector<unsigned> y(64);
    launch(votes, Grid{.threads = 64}, nullptr, y.data());
    for (unsigned i = 0; i < 64; ++i) {
      const unsigned lane = i % 32;
      const unsigned other = lane < 15 ? lane + 1 : lane == 15 ? 15 : lane ^ 1;
      const unsigned voted = 0x49249249u + (1u << 30);
      ASSERT_EQ(y[i], (voted ^ other << 24) + 2) << i;
    }
  }
}

__global__ void positions(uint3* y) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  y[block * blockDim.x + threadIdx.x] = {blockIdx.y, blockIdx.z, threadIdx.x};
}

TEST_F(StandIn, BlocksAreNumberedAlongThreeDimensions) {
  std::vector<uint3> y(2 * 3 * 4 * 5);
  launch(positions, Grid{.blocks = {2, 3, 4}, .threads = 5}, nullptr, y.data());
  const uint3 last = y.back(), early = y[2 * 5 + 1];
  EXPECT_THAT((std::vector{last.x, last.y, last.z}), testing::ElementsAre(2, 3, 4));
  EXPECT_THAT((std::vector{early.x, early.y, early.z}), testing::ElementsAre(1, 0, 1));
}

// ---- barriers
__global__ void returns_early(int from) {
  if (threadIdx.x >= static_cast<unsigned>(from)) return;
  __syncthreads();
}
__global__ void two_places() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void barrier_and_shuffle(float* y) {
  if (threadIdx.x == 3) __syncthreads();
  y[threadIdx.x] = __shfl_xor_sync(all_lanes, 1.0f, 1);
}

TEST_F(StandIn, AMissingBarrierIsNamed) {
  EXPECT_THAT(
      misuse([] { launch(returns_early, Grid{.blocks = {2}, .threads = 64}, nullptr, 40); }),
      AllOf(HasSubstr("returns_early(int)"), HasSubstr("block (0, 0, 0), thread (0, 0, 0)"),
            HasSubstr("waits at __syncthreads (standin_test.cpp:"),
            HasSubstr("thread 40 has returned")));
}
TEST_F(StandIn, ABarrierInTwoPlacesIsNamed) {
  EXPECT_THAT(misuse([] { launch(two_places, Grid{.threads = 64}, nullptr); }),
              AllOf(HasSubstr("two_places()"), HasSubstr("thread (32, 0, 0): comes to"),
                    HasSubstr("where thread 0 waits at __syncthreads")));
}
TEST_F(StandIn, WaitingForEachOtherAtDifferentWordsEnds) {
  std::vector<float> y(32);
  EXPECT_THAT(
      misuse([&] { launch(barrier_and_shuffle, Grid{.threads = 32}, nullptr, y.data()); }),
      AllOf(HasSubstr("waits at __shfl_xor_sync"), HasSubstr("thread 3 waits at __syncthreads")));
}
TEST_F(StandIn, WorksOnAfterAMisuse) {
  misuse([] { launch(returns_early, Grid{.threads = 1024}, nullptr, 1000); });
  EXPECT_EQ(misuse([] { launch(returns_early, Grid{.threads = 1024}, nullptr, 1024); }), "");
}

// ---- words of warps
__global__ void half_shuffles(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(all_lanes, 1.0f, 1);
}
__global__ void not_in_the_mask(float* y) {
  y[threadIdx.x] = __shfl_sync(0x7fffffffu, 1.0f, 0);
}
__global__ void asks_outside_the_mask(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}
__global__ void other_word(int* y) {
  if (threadIdx.x < 16) {
    y[threadIdx.x] = __any_sync(all_lanes, 1);
  } else {
    y[threadIdx.x] = __shfl_sync(all_lanes, 1, 0);
  }
}
__global__ void whole_warp(int* y) {
  y[threadIdx.x] = __shfl_xor_sync(all_lanes, 1, 1);
}

TEST_F(StandIn, AnAbsentLaneIsNamed) {
  std::vector<float> y(64);
  EXPECT_THAT(misuse([&] { launch(half_shuffles, Grid{.threads = 32}, nullptr, y.data()); }),
              AllOf(HasSubstr("half_shuffles(float*)"), HasSubstr("waits at __shfl_down_sync"),
                    HasSubstr("thread 16 has returned")));
}
TEST_F(StandIn, ALaneOutsideItsMaskIsNamed) {
  std::vector<float> y(64);
  EXPECT_THAT(misuse([&] { launch(not_in_the_mask, Grid{.threads = 32}, nullptr, y.data()); }),
              AllOf(HasSubstr("thread (31, 0, 0)"), HasSubstr("0x7fffffff, which lacks it")));
}
TEST_F(StandIn, AskingALaneOutsideTheMaskIsNamed) {
  std::vector<float> y(64);
  EXPECT_THAT(
      misuse([&] { launch(asks_outside_the_mask, Grid{.threads = 32}, nullptr, y.data()); }),
      HasSubstr("asks lane 20"));
}
TEST_F(StandIn, AnotherWordOnTheSameMaskIsNamed) {
  std::vector<int> y(64);
  EXPECT_THAT(misuse([&] { launch(other_word, Grid{.threads = 32}, nullptr, y.data()); }),
              AllOf(HasSubstr("thread (16, 0, 0): comes to __shfl_sync"),
                    HasSubstr("thread 0 waits at __ballot_sync")));
}
TEST_F(StandIn, LanesThatTheBlockLacksAreNamed) {
  std::vector<int> y(64);
  EXPECT_THAT(misuse([&] { launch(whole_warp, Grid{.threads = 40}, nullptr, y.data()); }),
              HasSubstr("that the block of 40 threads does not have"));
}

// ---- accesses
__global__ void reads_unwritten(float* y) {
  float* const shared = shared_memory<float>();
  if (threadIdx.x != 7) shared[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x];
}
__global__ void reads_beyond(float* y) {
  float* const shared = shared_memory<float>();
  shared[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x + 1];
}
// Right only where thread i + 1 had its turn before thread i.
__global__ void lacks_a_barrier(float* y) {
  float* const shared = shared_memory<float>();
  shared[threadIdx.x] = 1;
  y[threadIdx.x] = shared[threadIdx.x / 2];
}
__global__ void lacks_the_second_barrier(float* y) {
  float* const shared = shared_memory<float>();
  shared[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x ^ 1];
  shared[threadIdx.x] = 2;
}
__global__ void first_writes_last(float* y) {
  float* const shared = shared_memory<float>();
  if (threadIdx.x == 0) shared[0] = 1;
  __syncthreads();
  y[threadIdx.x] = shared[0];
  if (threadIdx.x == 0) shared[0] = 2;
}
__global__ void within_a_warp(float* y) {
  float* const shared = shared_memory<float>();
  shared[threadIdx.x] = 1;
  __syncwarp();
  y[threadIdx.x] = shared[threadIdx.x ^ 1];
  __syncwarp();
  shared[threadIdx.x] = 2;
}
__global__ void across_warps(float* y) {
  float* const shared = shared_memory<float>();
  shared[threadIdx.x] = 1;
  __syncwarp();
  y[threadIdx.x] = shared[threadIdx.x ^ 32];
}
__global__ void writes(float* y, int at) {
  if (threadIdx.x == 5) y[at] = 1;
}
__global__ void copies_four(const float* x, float* y) {
  *reinterpret_cast<float4*>(y) = *reinterpret_cast<const float4*>(x);
}

TEST_F(StandInAccesses, ReadsOfUnwrittenSharedMemoryAreNamed) {
  std::vector<float> y(64);
  const Grid grid{.threads = 64, .shared = 256};
  EXPECT_THAT(misuse([&] { launch(reads_unwritten, grid, nullptr, y.data()); }),
              AllOf(HasSubstr("reads_unwritten(float*)"), HasSubstr("thread (7, 0, 0)"),
                    HasSubstr("reads byte 28 of shared memory, which nobody has written")));
}
TEST_F(StandInAccesses, SharedMemoryEndsWhereTheLaunchSays) {
  std::vector<float> y(64);
  const Grid grid{.threads = 64, .shared = 256};
  EXPECT_THAT(misuse([&] { launch(reads_beyond, grid, nullptr, y.data()); }),
              AllOf(HasSubstr("thread (63, 0, 0)"),
                    HasSubstr("reads 4 bytes at 256 of shared memory, of which the launch asked "
                              "for 256")));
}
TEST_F(StandInAccesses, ForgottenBarriersAreNamedInEveryOrder) {
  std::vector<float> y(64);
  const Grid grid{.threads = 64, .shared = 256};
  for (const standin::Settings& settings : all_orders) {
    standin::set(settings);
    EXPECT_THROW(launch(lacks_a_barrier, grid, nullptr, y.data()), standin::Misuse);
    EXPECT_THROW(launch(lacks_the_second_barrier, grid, nullptr, y.data()), standin::Misuse);
    EXPECT_THROW(launch(across_warps, grid, nullptr, y.data()), standin::Misuse);
    EXPECT_NO_THROW(launch(within_a_warp, grid, nullptr, y.data()));
  }
  EXPECT_THAT(misuse([&] { launch(lacks_the_second_barrier, grid, nullptr, y.data()); }),
              AllOf(HasSubstr("thread (1, 0, 0): reads byte 0 of shared memory"),
                    HasSubstr("thread 0 writes with no barrier between them")));
  EXPECT_THAT(misuse([&] { launch(first_writes_last, grid, nullptr, y.data()); }),
              AllOf(HasSubstr("thread (0, 0, 0): writes byte 0 of shared memory"),
                    HasSubstr("other threads read with no barrier between them")));
}
TEST_F(StandInAccesses, ForbiddenMemoryIsNamed) {
  std::vector<float> y(64);
  const standin::Forbidden end(y.data() + 32, 128);
  EXPECT_EQ(misuse([&] { launch(writes, Grid{.threads = 32}, nullptr, y.data(), 31); }), "");
  EXPECT_THAT(misuse([&] { launch(writes, Grid{.threads = 32}, nullptr, y.data(), 32); }),
              AllOf(HasSubstr("thread (5, 0, 0)"), HasSubstr("writes 4 bytes outside a buffer")));
}
TEST_F(StandInAccesses, MisalignedVectorsAreNamed) {
  alignas(16) float x[8] = {}, y[8];
  EXPECT_EQ(misuse([&] { launch(copies_four, Grid{.threads = 1}, nullptr, x + 4, y); }), "");
  EXPECT_THAT(misuse([&] { launch(copies_four, Grid{.threads = 1}, nullptr, x + 1, y); }),
              HasSubstr("at once where only 4 are aligned"));
}

TEST(StandInDeathTest, AddressSanitizerWatchesWhereAccessesAreNotSeen) {
  if (standin::sees_accesses()) GTEST_SKIP() << "this build sees accesses";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  std::vector<float> y(64);
  EXPECT_DEATH(launch(reads_beyond, Grid{.threads = 64, .shared = 256}, nullptr, y.data()),
               "use-after-poison");
  const standin::Forbidden end(y.data() + 32, 128);
  EXPECT_DEATH(launch(writes, Grid{.threads = 32}, nullptr, y.data(), 32), "use-after-poison");
}

// ---- launches
TEST_F(StandIn, LaunchesThatNoDeviceTakesNameTheKernel) {
  const auto error = [](const Grid& grid) -> std::string {
    try {
      launch(returns_early, grid, nullptr, 0);
    } catch (const DeviceError& raised) {
      return raised.what();
    }
    return {};
  };
  EXPECT_THAT(
      error({.threads = 1025}),
      AllOf(HasSubstr("returns_early(int) could not be started on 1 x 1 x 1 blocks of 1025"),
            HasSubstr("invalid configuration argument")));
  EXPECT_THAT(error({.blocks = {0}}), HasSubstr("0 x 1 x 1 blocks"));
  EXPECT_THAT(error({.shared = 228 << 10}), HasSubstr("invalid argument"));
  EXPECT_EQ(error({.shared = 100 << 10}), "");
}

TEST_F(StandIn, Bfloat16RoundsToTheNearest) {
  EXPECT_EQ(__bfloat162float(__float2bfloat16_rn(1.00390625f)), 1.0f);
  EXPECT_EQ(__bfloat162float(__float2bfloat16_rn(1.01171875f)), 1.015625f);
  EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(-2.0f)), 0xc000);
}

}  // namespace
}  // namespace ftrain::cuda
