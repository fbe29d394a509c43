// What a CUDA device says that cannot be opened, or whose GPU fails. Each failure is injected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/devices/cuda/runtime/check.h"
#include "tests/cuda/small_device.h"

namespace ftrain::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CudaErrors : public testing::Test {
 protected:
  void TearDown() override { standin::reset(); }
  static std::string of_opening(int rank = 0, int ranks = 1) {
    return message_of([&] { open_cuda({}, rank, ranks); });
  }
};

TEST_F(CudaErrors, NoDriver) {
  standin::set_hardware(standin::Hardware{.driver = 0});
  standin::fail_next("cudaGetDeviceCount", cudaErrorInsufficientDriver);
  EXPECT_THAT(of_opening(), AllOf(HasSubstr("no NVIDIA driver"), HasSubstr("CUDA 13.0 or newer"),
                                  HasSubstr("plugin = \"cpu\"")));
}

TEST_F(CudaErrors, DriverTooOld) {
  standin::set_hardware(standin::Hardware{.driver = 12040});
  standin::fail_next("cudaGetDeviceCount", cudaErrorInsufficientDriver);
  EXPECT_THAT(of_opening(), AllOf(HasSubstr("too old"), HasSubstr("knows CUDA 12.4"),
                                  HasSubstr("built with CUDA 13.0")));
}

TEST_F(CudaErrors, NoGpu) {
  standin::set_hardware(standin::Hardware{.devices = 0});
  EXPECT_THAT(of_opening(), AllOf(HasSubstr("sees no GPU"), HasSubstr("nvidia-smi")));
}

TEST_F(CudaErrors, MoreRanksThanGpus) {
  standin::set_hardware(standin::Hardware{.devices = 2});
  EXPECT_THAT(of_opening(2, 4),
              AllOf(HasSubstr("4 ranks"), HasSubstr("sees 2 GPUs"), HasSubstr("[device] gpu = 0")));
  CudaDevice device;
  device.gpu = 1;
  device.open(2, 4);
  EXPECT_THAT(device.summary(), HasSubstr("GPU 1"));
  device.gpu = 5;
  EXPECT_THAT(message_of([&] { device.open(0, 1); }),
              AllOf(HasSubstr("gpu = 5"), HasSubstr("sees 2 GPUs")));
}

TEST_F(CudaErrors, NoCodeForTheGpu) {
  standin::set_hardware(standin::Hardware{.major = 7, .minor = 5});
  standin::fail_next("cudaFuncGetAttributes", cudaErrorNoKernelImageForDevice);
  EXPECT_THAT(of_opening(), AllOf(HasSubstr("sm_75"), HasSubstr("built for sm_80, sm_90a"),
                                  HasSubstr("CMAKE_CUDA_ARCHITECTURES")));
}

TEST_F(CudaErrors, DriverOfAnotherKind) {
  standin::fail_next("cudaGetDeviceCount", cudaErrorSystemDriverMismatch);
  EXPECT_THAT(of_opening(),
              AllOf(HasSubstr("cudaErrorSystemDriverMismatch"), HasSubstr("restart")));
}

TEST_F(CudaErrors, EachSaysTheWayOut) {
  const auto said = [](cudaError_t error) {
    return message_of([&] { check(error, "copying the inputs"); });
  };
  EXPECT_THAT(said(cudaErrorECCUncorrectable),
              AllOf(HasSubstr("failed while copying the inputs: cudaErrorECCUncorrectable ("),
                    HasSubstr("memory is damaged"), HasSubstr("last checkpoint")));
  EXPECT_THAT(said(cudaErrorLaunchFailure), HasSubstr("[device] check = true"));
  EXPECT_THAT(said(cudaErrorMemoryAllocation), HasSubstr("[dataset] batch"));
  EXPECT_THAT(said(cudaErrorNvlinkUncorrectable), HasSubstr("nvlink"));
  EXPECT_THAT(said(cudaErrorDevicesUnavailable), HasSubstr("was lost"));
  EXPECT_EQ(said(cudaErrorInvalidValue),
            "the GPU failed while copying the inputs: cudaErrorInvalidValue (invalid argument)");
  EXPECT_EQ(message_of([] { check(cudaSuccess, "nothing"); }), "nothing of the sort was thrown");
}

TEST_F(CudaErrors, MemoryThatIsGoneWhenItIsTaken) {
  const auto graph = small_program(true);
  const auto device = open_cuda();
  standin::fail_next("cudaMalloc", cudaErrorMemoryAllocation);
  EXPECT_THAT(message_of<OutOfMemoryError>([&] { Compiled(*device, *graph); }),
              AllOf(HasSubstr("holding the parameters"), HasSubstr("GiB free")));
  standin::fail_next("cudaMallocHost", cudaErrorMemoryAllocation);
  EXPECT_THAT(message_of([&] { Compiled(*device, *graph); }), HasSubstr("pinned in its place"));
}

TEST_F(CudaErrors, AStepOnALostGpu) {
  const auto graph = small_program(true);
  const auto device = open_cuda();
  Compiled compiled(*device, *graph);
  for (int i = 0; i < 3; ++i) compiled.run(i);
  standin::fail_next("cudaGraphLaunch", cudaErrorECCUncorrectable);
  EXPECT_THAT(message_of([&] { compiled.run(3); }),
              AllOf(HasSubstr("replaying the step"), HasSubstr("ECC")));
  float loss = 0;
  EXPECT_THAT(message_of([&] { compiled.program->read("loss", &loss); }), HasSubstr("ECC"));
}

}  // namespace
}  // namespace ftrain::cuda
