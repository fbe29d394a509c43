// Captures on the stand-in: recorded and repeated, and refused where CUDA refuses them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "plugins/devices/cuda/runtime/launch.h"
#include "tests/cuda/standin/standin.h"
#include "tests/cuda/standin_device.h"

namespace standin {
namespace {

using ftrain::cuda::launch;
using testing::ElementsAre;

__global__ void put_value(int* y, int value) {
  *y = value;
}
__global__ void add_to(int* y, int value) {
  *y += value;
}
__global__ void copy_value(const int* x, int* y) {
  *y = *x;
}

class Captures : public testing::Test {
 protected:
  Captures() : y_(1) { reset(); }
  ~Captures() override { reset(); }

  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) {
    STANDIN_OK(cudaStreamBeginCapture(stream_, mode));
  }
  cudaError_t end(cudaGraphExec_t* made = nullptr) {
    cudaGraph_t graph = nullptr;
    const cudaError_t error = cudaStreamEndCapture(stream_, &graph);
    EXPECT_EQ(graph == nullptr, error != cudaSuccess);
    if (made != nullptr) STANDIN_OK(cudaGraphInstantiate(made, graph, 0));
    if (graph != nullptr) STANDIN_OK(cudaGraphDestroy(graph));
    return error;
  }
  cudaStreamCaptureStatus status() {
    cudaStreamCaptureStatus status{};
    STANDIN_OK(cudaStreamIsCapturing(stream_, &status));
    return status;
  }

  DeviceBuffer<int> y_;
  Stream stream_, side_;
};

TEST_F(Captures, AreRecordedWithTheirArgumentsAndRepeated) {
  launch(put_value, {.threads = 1}, stream_, y_.data(), 1);
  begin();
  EXPECT_EQ(status(), cudaStreamCaptureStatusActive);
  int value = 10;
  launch(add_to, {.threads = 1}, stream_, y_.data(), value);
  value = 1000;
  cudaGraphExec_t made = nullptr;
  STANDIN_OK(end(&made));
  EXPECT_EQ(status(), cudaStreamCaptureStatusNone);
  EXPECT_THAT(y_.read(stream_), ElementsAre(1)) << "nothing of it was done";
  for (int i = 0; i < 3; ++i) STANDIN_OK(cudaGraphLaunch(made, stream_));
  launch(add_to, {.threads = 1}, stream_, y_.data(), 100);
  EXPECT_THAT(y_.read(stream_), ElementsAre(131));
  STANDIN_OK(cudaGraphExecDestroy(made));
  EXPECT_EQ(cudaGraphLaunch(made, stream_), cudaErrorInvalidValue);
}

TEST_F(Captures, FollowEventsToOtherStreams) {
  const DeviceBuffer<int> z(1);
  const PinnedBuffer<int> seen(1);
  begin();
  launch(put_value, {.threads = 1}, stream_, y_.data(), 5);
  after(side_, stream_);
  launch(copy_value, {.threads = 1}, side_, y_.data(), z.data());
  STANDIN_OK(cudaMemcpyAsync(seen.data(), z.data(), sizeof(int), cudaMemcpyDeviceToHost, side_));
  after(stream_, side_);
  launch(put_value, {.threads = 1}, stream_, y_.data(), 6);
  cudaGraphExec_t made = nullptr;
  STANDIN_OK(end(&made));
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    set(Settings{.seed = seed});
    seen[0] = 0;
    STANDIN_OK(cudaGraphLaunch(made, stream_));
    stream_.wait();
    EXPECT_EQ(seen[0], 5);
  }
  STANDIN_OK(cudaGraphExecDestroy(made));
  launch(put_value, {.threads = 1}, side_, y_.data(), 7);  // an ordinary stream again
  EXPECT_THAT(y_.read(side_), ElementsAre(7));
}

TEST_F(Captures, FailWhenAStreamDoesNotComeBack) {
  begin();
  after(side_, stream_);
  launch(put_value, {.threads = 1}, side_, y_.data(), 1);
  EXPECT_EQ(end(), cudaErrorStreamCaptureUnjoined);
  launch(put_value, {.threads = 1}, side_, y_.data(), 2);
  EXPECT_THAT(y_.read(side_), ElementsAre(2)) << "the stream is free";
}

TEST_F(Captures, AreSpoiledByCallsThatWaitOrAllocate) {
  const std::vector<std::function<cudaError_t()>> calls{
      [] {
        void* memory = nullptr;
        return cudaMalloc(&memory, 1);
      },
      [] {
        void* memory = nullptr;
        return cudaMallocHost(&memory, 1);
      },
      [&] { return cudaStreamSynchronize(stream_); },
      [&] { return cudaStreamSynchronize(side_); },
      [] { return cudaDeviceSynchronize(); },
      [&] { return cudaStreamQuery(stream_); },
      [&] {
        const int pageable = 1;
        return cudaMemcpyAsync(y_.data(), &pageable, sizeof pageable, cudaMemcpyHostToDevice,
                               stream_);
      },
  };
  for (std::size_t i = 0; i < calls.size(); ++i) {
    SCOPED_TRACE(i);
    begin();
    EXPECT_EQ(calls[i](), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(status(), cudaStreamCaptureStatusInvalidated);
    EXPECT_EQ(cudaMemsetAsync(y_.data(), 0, 4, stream_), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(status(), cudaStreamCaptureStatusNone);
  }
}

TEST_F(Captures, AreSpoiledByOtherThreadsInGlobalModeOnly) {
  const auto allocate_elsewhere = [] {
    cudaError_t said = cudaSuccess;
    std::thread([&] {
      void* memory = nullptr;
      said = cudaMalloc(&memory, 1);
      if (said == cudaSuccess) STANDIN_OK(cudaFree(memory));
    }).join();
    return said;
  };
  begin(cudaStreamCaptureModeGlobal);
  EXPECT_EQ(allocate_elsewhere(), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  begin(cudaStreamCaptureModeThreadLocal);
  STANDIN_OK(allocate_elsewhere());
  STANDIN_OK(end());
  begin(cudaStreamCaptureModeRelaxed);
  void* memory = nullptr;
  STANDIN_OK(cudaMalloc(&memory, 1));
  STANDIN_OK(cudaFree(memory));
  STANDIN_OK(end());
}

TEST_F(Captures, DependOnNothingOutside) {
  const Event outside;
  launch(put_value, {.threads = 1}, side_, y_.data(), 1);
  STANDIN_OK(cudaEventRecord(outside, side_));
  begin();
  EXPECT_EQ(cudaStreamWaitEvent(stream_, outside, 0), cudaErrorStreamCaptureIsolation);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
}

TEST_F(Captures, AreNotWaitedForFromOutside) {
  const Event inside;
  begin();
  STANDIN_OK(cudaEventRecord(inside, stream_));
  EXPECT_EQ(cudaEventSynchronize(inside), cudaErrorCapturedEvent);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  begin();
  STANDIN_OK(cudaEventRecord(inside, stream_));
  STANDIN_OK(end());
  EXPECT_EQ(cudaStreamWaitEvent(side_, inside, 0), cudaErrorCapturedEvent)
      << "what was recorded in a capture is no event of its repetitions";
}

TEST_F(Captures, StayApart) {
  begin();
  STANDIN_OK(cudaStreamBeginCapture(side_, cudaStreamCaptureModeThreadLocal));
  const Event event;
  STANDIN_OK(cudaEventRecord(event, side_));
  EXPECT_EQ(cudaStreamWaitEvent(stream_, event, 0), cudaErrorStreamCaptureMerge);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(side_, &graph), cudaErrorStreamCaptureInvalidated);
}

TEST_F(Captures, EndWhereTheyBegan) {
  begin();
  after(side_, stream_);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(side_, &graph), cudaErrorStreamCaptureUnmatched);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(end(), cudaErrorIllegalState) << "there is none";
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal),
            cudaErrorStreamCaptureUnsupported);
}

}  // namespace
}  // namespace standin
