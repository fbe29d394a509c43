// The stand-in's runtime: streams are queues that are done late and in any order that events allow,
// and errors are CUDA's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <latch>
#include <set>
#include <string>
#include <thread>

#include "plugins/devices/cuda/runtime/launch.h"
#include "tests/cuda/standin/standin.h"
#include "tests/cuda/standin_device.h"

namespace standin {
namespace {

using ftrain::cuda::launch;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

__global__ void put(int* y, int value) {
  *y = value;
}
__global__ void add(int* y, int value) {
  *y += value;
}
__global__ void put_beyond(int* y) {
  y[1] = 0;
}

class Runtime : public testing::Test {
 protected:
  Runtime() { reset(); }
  ~Runtime() override { reset(); }
};

using Function = std::function<void()>;
void call(void* function) {
  (*static_cast<Function*>(function))();
}
// `function` lives until it has run.
cudaError_t enqueue_call(cudaStream_t stream, Function& function) {
  return cudaLaunchHostFunc(stream, call, &function);
}

std::string misuse(const Function& f) {
  try {
    f();
  } catch (const Misuse& error) {
    return error.what();
  }
  return {};
}

TEST_F(Runtime, WorkIsDoneWhenTheHostWaitsForItAndNotBefore) {
  const Stream stream, other;
  int done = 0, done_by_other = 0;
  Function mark = [&] { ++done; }, mark_other = [&] { ++done_by_other; };
  STANDIN_OK(enqueue_call(stream, mark));
  STANDIN_OK(enqueue_call(other, mark_other));
  EXPECT_EQ(done, 0);
  stream.wait();
  EXPECT_EQ(done, 1);
  EXPECT_EQ(done_by_other, 0);
  STANDIN_OK(cudaDeviceSynchronize());
  EXPECT_EQ(done_by_other, 1);
}

TEST_F(Runtime, ArgumentsAreThoseOfTheLaunch) {
  const Stream stream;
  const DeviceBuffer<int> y(1);
  int value = 3;
  launch(put, {.threads = 1}, stream, y.data(), value);
  value = 4;
  EXPECT_THAT(y.read(stream), ElementsAre(3));
}

TEST_F(Runtime, PinnedMemoryIsReadLateAndOtherMemoryAtOnce) {
  const Stream stream;
  const DeviceBuffer<int> from_pinned(1), from_pageable(1);
  const PinnedBuffer<int> pinned(1);
  std::vector<int> pageable{1};
  pinned[0] = 1;
  STANDIN_OK(cudaMemcpyAsync(from_pinned.data(), pinned.data(), sizeof(int), cudaMemcpyHostToDevice,
                             stream));
  STANDIN_OK(cudaMemcpyAsync(from_pageable.data(), pageable.data(), sizeof(int),
                             cudaMemcpyHostToDevice, stream));
  pinned[0] = pageable[0] = 2;
  EXPECT_THAT(from_pinned.read(stream), ElementsAre(2));
  EXPECT_THAT(from_pageable.read(stream), ElementsAre(1));

  STANDIN_OK(cudaHostRegister(pageable.data(), sizeof(int), cudaHostRegisterDefault));
  STANDIN_OK(cudaMemcpyAsync(from_pageable.data(), pageable.data(), sizeof(int),
                             cudaMemcpyHostToDevice, stream));
  pageable[0] = 5;
  stream.wait();
  STANDIN_OK(cudaHostUnregister(pageable.data()));
  EXPECT_THAT(from_pageable.read(stream), ElementsAre(5));
}

TEST_F(Runtime, ACopyToPinnedMemoryIsThereAfterAWaitAlone) {
  const Stream stream;
  const DeviceBuffer<int> x(1);
  const PinnedBuffer<int> y(1);
  y[0] = 7;
  launch(put, {.threads = 1}, stream, x.data(), 3);
  STANDIN_OK(cudaMemcpyAsync(y.data(), x.data(), sizeof(int), cudaMemcpyDeviceToHost, stream));
  EXPECT_EQ(y[0], 7);
  stream.wait();
  EXPECT_EQ(y[0], 3);
}

// What `y` holds in the end, over many seeds.
std::set<int> outcomes(const std::function<void(cudaStream_t, cudaStream_t, int*)>& work) {
  std::set<int> seen;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    set(Settings{.seed = seed});
    const Stream first, second;
    const DeviceBuffer<int> y(1);
    work(first, second, y.data());
    STANDIN_OK(cudaDeviceSynchronize());
    seen.insert(y.read(first)[0]);
  }
  return seen;
}

TEST_F(Runtime, AMissingWaitChangesResults) {
  EXPECT_THAT(outcomes([](cudaStream_t first, cudaStream_t second, int* y) {
                launch(put, {.threads = 1}, first, y, 1);
                launch(put, {.threads = 1}, second, y, 2);
              }),
              ElementsAre(1, 2));
  EXPECT_THAT(outcomes([](cudaStream_t first, cudaStream_t second, int* y) {
                launch(put, {.threads = 1}, first, y, 1);
                after(second, first);
                launch(put, {.threads = 1}, second, y, 2);
              }),
              ElementsAre(2));
}

TEST_F(Runtime, AMissingWaitInACaptureChangesResultsToo) {
  const auto captured = [](bool join_first) {
    return [join_first](cudaStream_t first, cudaStream_t second, int* y) {
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t made = nullptr;
      STANDIN_OK(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
      after(second, first);
      launch(put, {.threads = 1}, first, y, 1);
      if (join_first) after(second, first);
      launch(put, {.threads = 1}, second, y, 2);
      after(first, second);
      STANDIN_OK(cudaStreamEndCapture(first, &graph));
      STANDIN_OK(cudaGraphInstantiate(&made, graph, 0));
      STANDIN_OK(cudaGraphDestroy(graph));
      STANDIN_OK(cudaGraphLaunch(made, first));
      STANDIN_OK(cudaGraphExecDestroy(made));
    };
  };
  EXPECT_THAT(outcomes(captured(false)), ElementsAre(1, 2));
  EXPECT_THAT(outcomes(captured(true)), ElementsAre(2));
}

TEST_F(Runtime, ASeedIsAnOrder) {
  const auto order = [](std::uint64_t seed) {
    std::string said;
    std::thread([&] {  // with streams of its own
      set(Settings{.seed = seed});
      const Stream streams[3];
      Function say[3];
      for (int s = 0; s < 3; ++s) {
        say[s] = [&said, s] { said += static_cast<char>('a' + s); };
        for (int i = 0; i < 6; ++i) STANDIN_OK(enqueue_call(streams[s], say[s]));
      }
      STANDIN_OK(cudaDeviceSynchronize());
    })
        .join();
    return said;
  };
  EXPECT_EQ(order(1), order(1));
  std::set<std::string> different;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) different.insert(order(seed));
  EXPECT_GT(different.size(), 5u);
}

TEST_F(Runtime, EventsSayWhenAndHowLong) {
  const Stream stream;
  const Event unused, begin(cudaEventDefault), end(cudaEventDefault), untimed;
  STANDIN_OK(cudaEventQuery(unused));
  STANDIN_OK(cudaStreamWaitEvent(stream, unused, 0));
  Function sleep = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  STANDIN_OK(cudaEventRecord(begin, stream));
  STANDIN_OK(enqueue_call(stream, sleep));
  STANDIN_OK(cudaEventRecord(end, stream));
  STANDIN_OK(cudaEventRecord(untimed, stream));
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorNotReady);
  EXPECT_EQ(cudaEventQuery(end), cudaErrorNotReady);
  while (cudaEventQuery(end) == cudaErrorNotReady) std::this_thread::yield();
  STANDIN_OK(cudaEventElapsedTime(&milliseconds, begin, end));
  EXPECT_GE(milliseconds, 2.0f);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, untimed), cudaErrorInvalidResourceHandle);
}

TEST_F(Runtime, HandlesThatAreGoneAreRefused) {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  STANDIN_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  STANDIN_OK(cudaEventCreateWithFlags(&event, cudaEventDefault));
  int done = 0;
  Function mark = [&] { ++done; };
  STANDIN_OK(enqueue_call(stream, mark));
  STANDIN_OK(cudaStreamDestroy(stream));
  STANDIN_OK(cudaEventDestroy(event));
  STANDIN_OK(cudaDeviceSynchronize());
  EXPECT_EQ(done, 1) << "work of a stream that is destroyed is still done";
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventSynchronize(event), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaErrorInvalidResourceHandle);
}

// ---- errors

TEST_F(Runtime, AKernelThatDoesWrongIsThrownByTheCallThatWaitsAndEndsAll) {
  if (!sees_accesses()) GTEST_SKIP() << "AddressSanitizer watches in this build";
  const Stream stream;
  const DeviceBuffer<int> x(1);
  launch(put_beyond, {.threads = 1}, stream, x.data());
  EXPECT_THAT(misuse([&] { cudaStreamSynchronize(stream); }),
              AllOf(HasSubstr("put_beyond"), HasSubstr("outside a buffer")));
  void* more = nullptr;
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaMalloc(&more, 1), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure) << "it stays";
  reset();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  launch(put, {.threads = 1}, stream, x.data(), 1);
  EXPECT_THAT(x.read(stream), ElementsAre(1));
}

TEST_F(Runtime, FailuresToComeCome) {
  void* memory = nullptr;
  fail_next("cudaMalloc", cudaErrorMemoryAllocation, 1);
  STANDIN_OK(cudaMalloc(&memory, 1));
  STANDIN_OK(cudaFree(memory));
  EXPECT_EQ(cudaMalloc(&memory, 1), cudaErrorMemoryAllocation);
  STANDIN_OK(cudaMalloc(&memory, 1));
  STANDIN_OK(cudaFree(memory));

  const Stream stream;
  const DeviceBuffer<int> x(1);
  fail_next("kernel", cudaErrorECCUncorrectable, 1);
  launch(put, {.threads = 1}, stream, x.data(), 1);
  stream.wait();
  launch(put, {.threads = 1}, stream, x.data(), 2);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorECCUncorrectable);
  EXPECT_EQ(cudaMalloc(&memory, 1), cudaErrorECCUncorrectable);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorECCUncorrectable), "cudaErrorECCUncorrectable");
  EXPECT_STREQ(cudaGetErrorString(cudaErrorECCUncorrectable),
               "uncorrectable ECC error encountered");
}

TEST_F(Runtime, TheHardwareIsAsATestSaysItIs) {
  Hardware old;
  old.major = 7;
  old.minor = 5;
  old.devices = 1;
  set_hardware(old);
  int count = 0;
  STANDIN_OK(cudaGetDeviceCount(&count));
  EXPECT_EQ(count, 1);
  cudaDeviceProp properties;
  STANDIN_OK(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.major * 10 + properties.minor, 75);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  cudaFuncAttributes attributes;
  EXPECT_EQ(cudaFuncGetAttributes(&attributes, put), cudaErrorNoKernelImageForDevice);
  EXPECT_THROW(launch(put, {.threads = 1}, nullptr, nullptr, 1), ftrain::DeviceError);
  old.devices = 0;
  set_hardware(old);
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
}

TEST_F(Runtime, HostFunctionsCallNothingOfCudaAndThrowNothing) {
  const Stream stream;
  cudaError_t said = cudaSuccess;
  Function ask = [&] {
    void* memory = nullptr;
    said = cudaMalloc(&memory, 1);
  };
  STANDIN_OK(enqueue_call(stream, ask));
  stream.wait();
  EXPECT_EQ(said, cudaErrorNotPermitted);
  Function fail = [] { throw Misuse("by a function"); };
  STANDIN_OK(enqueue_call(stream, fail));
  EXPECT_EQ(misuse([&] { cudaStreamSynchronize(stream); }), "by a function");
}

// ---- ranks: host threads with streams of their own

TEST_F(Runtime, RanksMeetInHostFunctions) {
  std::barrier meeting(2);
  std::vector<int> results(2);
  const auto rank = [&](std::size_t r) {
    const Stream main, side;
    const DeviceBuffer<int> x(1);
    Function meet = [&] { meeting.arrive_and_wait(); };
    launch(put, {.threads = 1}, main, x.data(), 1);
    for (int step = 0; step < 20; ++step) {
      after(side, main);
      STANDIN_OK(enqueue_call(side, meet));
      after(main, side);
      launch(add, {.threads = 1}, main, x.data(), 1);
    }
    results[r] = x.read(main)[0];
  };
  std::thread other(rank, 1);
  rank(0);
  other.join();
  EXPECT_THAT(results, Each(21));
}

TEST_F(Runtime, ARankThatWaitsForAnotherDoesNotNeedItToWaitForItsOwnWork) {
  std::barrier meeting(2);
  std::latch enqueued(1), met(1);
  Function meet = [&] { meeting.arrive_and_wait(); };
  std::thread other([&] {
    const Stream stream;
    STANDIN_OK(enqueue_call(stream, meet));
    enqueued.count_down();
    met.wait();
    stream.wait();
  });
  enqueued.wait();
  const Stream stream;
  STANDIN_OK(enqueue_call(stream, meet));
  stream.wait();
  met.count_down();
  other.join();
}

}  // namespace
}  // namespace standin
