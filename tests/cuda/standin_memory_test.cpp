// The stand-in's device memory: the device's alone, with ends, and NaN at first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <functional>
#include <vector>

#include "tests/cuda/standin/standin.h"
#include "tests/cuda/standin_device.h"

namespace standin {
namespace {

using testing::Each;

class RuntimeMemory : public testing::Test {
 protected:
  RuntimeMemory() { reset(); }
  ~RuntimeMemory() override { reset(); }
};

TEST_F(RuntimeMemory, NewMemoryIsNaN) {
  const Stream stream;
  const DeviceBuffer<float> x(3);
  EXPECT_THAT(x.read(stream), Each(testing::IsNan()));
}

TEST_F(RuntimeMemory, TheHostDoesNotReachDeviceMemory) {
  const Stream stream;
  const DeviceBuffer<char> x(1);
  STANDIN_OK(cudaMemsetAsync(x.data(), 1, 1, stream));
  stream.wait();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(write(ends[1], x.data(), 1), -1);
  EXPECT_EQ(errno, EFAULT);
  ssize_t written = 0;
  enqueue(stream, [&] { written = write(ends[1], x.data(), 1); });
  stream.wait();
  EXPECT_EQ(written, 1) << "operations do";
  std::function<void()> try_to = [&] { written = write(ends[1], x.data(), 1); };
  STANDIN_OK(cudaLaunchHostFunc(
      stream, [](void* f) { (*static_cast<std::function<void()>*>(f))(); }, &try_to));
  stream.wait();
  EXPECT_EQ(written, -1) << "functions of the host do not";
  close(ends[0]);
  close(ends[1]);
}

TEST_F(RuntimeMemory, MemoryEnds) {
  Hardware small;
  small.memory = 1 << 20;
  set_hardware(small);
  std::size_t free = 0, total = 0;
  STANDIN_OK(cudaMemGetInfo(&free, &total));
  const std::size_t before = free;
  EXPECT_EQ(total, small.memory);
  void *first = nullptr, *second = nullptr;
  STANDIN_OK(cudaMalloc(&first, before / 2 + 512));
  EXPECT_EQ(cudaMalloc(&second, before / 2), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  STANDIN_OK(cudaMemGetInfo(&free, &total));
  EXPECT_EQ(free, before - (before / 2 + 512));
  STANDIN_OK(cudaFree(first));
  STANDIN_OK(cudaMalloc(&second, before / 2));
  STANDIN_OK(cudaFree(second));
  EXPECT_EQ(cudaFree(second), cudaErrorInvalidValue);
}

TEST_F(RuntimeMemory, CopiesStayWithinBuffersAndGoTheWayTheySay) {
  const Stream stream;
  const DeviceBuffer<int> x(2);
  std::vector<int> y(4);
  const auto copy = [&](void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, stream);
  };
  EXPECT_EQ(copy(y.data(), x.data(), 12, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(copy(y.data(), x.data(), 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(y.data(), x.data(), 8, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  STANDIN_OK(copy(y.data(), x.data(), 8, cudaMemcpyDeviceToHost));
  STANDIN_OK(copy(y.data(), x.data(), 8, cudaMemcpyDefault));
  EXPECT_EQ(cudaMemsetAsync(x.data() + 1, 0, 8, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(y.data(), 0, 8, stream), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace standin
