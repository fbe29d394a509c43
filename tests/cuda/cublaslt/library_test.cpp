// The real library on a machine without a GPU; with one, tests/cuda/gpu multiplies by it.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {
namespace {

TEST(CublasLibrary, SaysThatItNeedsAGpu) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) GTEST_SKIP() << "there is one";
  try {
    open_cublas({});
    FAIL() << "it was opened";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("cuBLASLt cannot be opened: "));
  }
}

}  // namespace
}  // namespace ftrain::cuda
