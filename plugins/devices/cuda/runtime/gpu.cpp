#include "plugins/devices/cuda/runtime/gpu.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/device_code.h"

// The architectures that the program was compiled for, as in "sm_80, sm_90a".
#ifndef FTRAIN_CUDA_ARCHITECTURES
#define FTRAIN_CUDA_ARCHITECTURES "the machine's own"
#endif

namespace ftrain::cuda {
namespace {

constexpr const char* or_cpu = ", or set [device] plugin = \"cpu\"";

// What drivers say of GPUs that are planned for without having one.
struct Kind {
  std::string_view key, name;
  int major, multiprocessors;
  std::size_t memory_bytes, l2_bytes;
};
constexpr std::size_t mib = std::size_t{1} << 20;
constexpr Kind kinds[] = {{"a100", "NVIDIA A100", 8, 108, 81050 * mib, 40 * mib},
                          {"h100", "NVIDIA H100", 9, 132, 81090 * mib, 50 * mib},
                          {"h200", "NVIDIA H200", 9, 132, 143150 * mib, 50 * mib}};

int driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) version = 0;
  cudaGetLastError();
  return version;
}

int runtime_version() {
  int version = 0;
  check(cudaRuntimeGetVersion(&version), "asking for the version of CUDA");
  return version;
}

// ", CUDA_VISIBLE_DEVICES is \"0,1\""
std::string visible_text() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible == nullptr ? "" : std::string(", with CUDA_VISIBLE_DEVICES = \"") + visible + "\"";
}

[[noreturn]] void fail_without_gpus() {
  throw DeviceError(
      "[device] plugin = \"cuda\": there is an NVIDIA driver, and this process sees "
      "no GPU" +
      visible_text() + "; see what nvidia-smi lists" + or_cpu);
}

int count_gpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess) {
    if (count == 0) fail_without_gpus();
    return count;
  }
  cudaGetLastError();
  const int driver = driver_version(), runtime = runtime_version();
  if (error == cudaErrorNoDevice) fail_without_gpus();
  if (driver == 0 || error == cudaErrorStubLibrary) {
    throw DeviceError(
        "[device] plugin = \"cuda\": this machine has no NVIDIA driver (libcuda.so.1 "
        "was not found); install one for CUDA " +
        version_text(runtime) + " or newer" + or_cpu);
  }
  if (error == cudaErrorInsufficientDriver || driver / 1000 < runtime / 1000) {
    throw DeviceError("[device] plugin = \"cuda\": the NVIDIA driver is too old: it knows CUDA " +
                      version_text(driver) + ", and this program is built with CUDA " +
                      version_text(runtime) + "; install a newer driver" + or_cpu);
  }
  fail(error, "looking for GPUs" + visible_text());
}

}  // namespace

void Gpu::use() const {
  if (assumed) return;
  check(cudaSetDevice(index), "turning to GPU " + std::to_string(index));
}

std::int64_t Gpu::tile_bytes() const {
  // Half: the other half holds what streams past the tile.
  return std::max<std::int64_t>(static_cast<std::int64_t>(l2_bytes) / 2, std::int64_t{1} << 20);
}

std::string Gpu::text() const {
  if (assumed) return name + ", assumed (" + bytes_text(memory_bytes) + ")";
  return name + " (GPU " + std::to_string(index) + ", sm_" + std::to_string(major) +
         std::to_string(minor) + ", " + bytes_text(memory_bytes) + "), CUDA " +
         version_text(runtime) + ", driver " + version_text(driver);
}

std::vector<std::string> assumed_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kinds) names.emplace_back(kind.key);
  return names;
}

Gpu assumed_gpu(std::string_view name) {
  for (const Kind& kind : kinds) {
    if (kind.key != name) continue;
    return {.name = std::string(kind.name),
            .major = kind.major,
            .multiprocessors = kind.multiprocessors,
            .memory_bytes = kind.memory_bytes,
            .l2_bytes = kind.l2_bytes,
            .runtime = runtime_version(),
            .assumed = true};
  }
  throw DeviceError("no GPU of the name '" + std::string(name) + "' is known");
}

Gpu find_gpu(std::int64_t chosen, int local_rank, int local_ranks) {
  const int count = count_gpus();
  Gpu gpu;
  gpu.index = chosen >= 0 ? static_cast<int>(std::min<std::int64_t>(chosen, count)) : local_rank;
  if (gpu.index >= count) {
    const std::string has = count == 1 ? "1 GPU" : std::to_string(count) + " GPUs";
    if (chosen >= 0) {
      throw DeviceError("[device] gpu = " + std::to_string(chosen) + ": this process sees " + has +
                        visible_text() + ", numbered from 0");
    }
    throw DeviceError("each rank takes a GPU of its own: " + std::to_string(local_ranks) +
                      " ranks are on this machine, and this one sees " + has + visible_text() +
                      "; start fewer ranks, or set [device] gpu = 0 where each rank is shown "
                      "a GPU of its own");
  }
  gpu.use();
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, gpu.index),
        "asking for the properties of GPU " + std::to_string(gpu.index));
  gpu.name = properties.name;
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.multiprocessors = properties.multiProcessorCount;
  gpu.memory_bytes = properties.totalGlobalMem;
  gpu.l2_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  gpu.driver = driver_version();
  gpu.runtime = runtime_version();
  if (const cudaError_t error = load_device_code(); error != cudaSuccess) {
    cudaGetLastError();
    if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction &&
        error != cudaErrorUnsupportedPtxVersion) {
      fail(error, "loading device code");
    }
    throw DeviceError("this program has no code for GPU " + std::to_string(gpu.index) + ", " +
                      gpu.name + " of sm_" + std::to_string(gpu.major) + std::to_string(gpu.minor) +
                      ": it was built for " FTRAIN_CUDA_ARCHITECTURES
                      "; build it with this architecture in CMAKE_CUDA_ARCHITECTURES" +
                      or_cpu);
  }
  return gpu;
}

}  // namespace ftrain::cuda
