#include "plugins/devices/cuda/runtime/check.h"

#include <cstdio>
#include <iterator>

#include "ftrain/base/error.h"

namespace ftrain::cuda {
namespace {

// Of errors that a kernel raises while it runs: they come to light at a later call.
constexpr const char* later =
    "; a kernel raised it some time before, and which one cannot be known of a step that is "
    "replayed: set [device] check = true to have it named";

std::string way_out(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
    case cudaErrorCallRequiresNewerDriver:
      return "; install a newer NVIDIA driver";
    case cudaErrorNoDevice:
      return "; this process sees no GPU: look at CUDA_VISIBLE_DEVICES and nvidia-smi";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "; the program has no code for this GPU: build it with its architecture in "
             "CMAKE_CUDA_ARCHITECTURES";
    case cudaErrorMemoryAllocation:
      return "; lower [dataset] batch, use more ranks or end what else uses the GPU";
    case cudaErrorECCUncorrectable:
      return "; the GPU's memory is damaged: reset the GPU (nvidia-smi --gpu-reset) and continue "
             "from the last checkpoint; replace it when that happens again";
    case cudaErrorNvlinkUncorrectable:
      return "; the link between GPUs is damaged: look at nvidia-smi nvlink --errorcounters";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
      return later;
    case cudaErrorLaunchTimeout:
      return "; a kernel took longer than this GPU's screen waits for: use a GPU without a screen";
    case cudaErrorDevicesUnavailable:
    case cudaErrorDeviceUninitialized:
    case cudaErrorContextIsDestroyed:
      return "; the GPU is taken by another process or was lost: look at nvidia-smi and the "
             "kernel's log (dmesg, Xid), then continue from the last checkpoint";
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
      return "; the driver's parts do not fit each other or are not running: restart the machine "
             "or its driver (on machines with NVSwitch nvidia-fabricmanager too)";
    case cudaErrorUnknown:
      return "; the driver failed: look at the kernel's log (dmesg, Xid)";
    default:
      return "";
  }
}

}  // namespace

std::string text_of(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + " (" + cudaGetErrorString(error) + ")";
}

void fail(cudaError_t error, std::string_view doing) {
  cudaGetLastError();  // so that the next call does not find it again
  throw DeviceError("the GPU failed while " + std::string(doing) + ": " + text_of(error) +
                    way_out(error));
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string bytes_text(std::size_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < std::size(units)) {
    amount /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
  return text;
}

}  // namespace ftrain::cuda
