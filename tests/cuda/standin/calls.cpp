#include "tests/cuda/standin/calls.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda/standin/block.h"
#include "tests/cuda/standin/memory.h"
#include "tests/cuda/standin/queue.h"

namespace standin {
namespace {

struct Failure {
  std::string call;
  cudaError error;
  int later;
};

struct Wishes {
  std::mutex mutex;
  Settings settings;
  Hardware hardware;
  std::vector<Failure> failures;

  // Never destroyed: engines outlive main().
  static Wishes& all() {
    static Wishes* const wishes = new Wishes;
    return *wishes;
  }

 private:
  Wishes() {
    const char* const text = std::getenv("FTRAIN_STANDIN");
    std::string rest = text != nullptr ? text : "";
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(','), rest.size());
      take(rest.substr(0, end));
      rest.erase(0, end + 1);
    }
  }
  void take(const std::string& wish) {
    const std::size_t sign = wish.find('=');
    const std::string key = wish.substr(0, sign);
    const std::string value = sign == std::string::npos ? "" : wish.substr(sign + 1);
    if (key == "seed") {
      settings.seed = std::stoull(value);
    } else if (key == "memory") {
      hardware.memory = std::stoull(value);
    } else if (key == "devices") {
      hardware.devices = std::stoi(value);
    } else if (key == "multiprocessors") {
      hardware.multiprocessors = std::stoi(value);
    } else if (key == "driver") {
      hardware.driver = std::stoi(value);
    } else if (key == "capability") {
      hardware.major = std::stoi(value) / 10;
      hardware.minor = std::stoi(value) % 10;
    } else if (key == "fail") {
      const std::size_t first = value.find(':'), second = value.find(':', first + 1);
      failures.push_back({value.substr(0, first),
                          static_cast<cudaError>(std::stoi(value.substr(first + 1))),
                          std::stoi(value.substr(second + 1))});
    } else {
      throw Misuse("FTRAIN_STANDIN does not know '" + wish + "'");
    }
  }
};

thread_local cudaError_t last_error = cudaSuccess;
thread_local int device = 0;

// After these a process can do nothing more on its device.
bool ends_all(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
      return true;
    default:
      return false;
  }
}

// Destructors make these calls.
bool releases(const std::string& call) {
  return call.ends_with("Destroy") || call.starts_with("cudaFree") || call.ends_with("Unregister");
}

}  // namespace

void set(const Settings& settings) {
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  wishes.settings = settings;
}
Settings settings() {
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  return wishes.settings;
}
void set_hardware(const Hardware& hardware) {
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  wishes.hardware = hardware;
}
Hardware hardware() {
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  return wishes.hardware;
}
void fail_next(const std::string& call, cudaError error, int later) {
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  wishes.failures.push_back({call, error, later});
}

void reset() {
  wait_for_all();
  forget_failures();
  last_error = cudaSuccess;
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  wishes.settings = {};
  wishes.hardware = {};
  wishes.failures.clear();
}

int current_device() {
  return device;
}

cudaError_t injected(const char* call) {
  Wishes& wishes = Wishes::all();
  const std::scoped_lock lock(wishes.mutex);
  for (auto failure = wishes.failures.begin(); failure != wishes.failures.end(); ++failure) {
    if (failure->call != call || failure->later-- > 0) continue;
    const cudaError_t error = failure->error;
    wishes.failures.erase(failure);
    return error;
  }
  return cudaSuccess;
}

cudaError_t refuse_call(const char* call) {
  if (in_host_function()) return cudaErrorNotPermitted;
  if (const cudaError_t error = sticky_error()) {
    if (!releases(call)) throw_failure();
    return error;
  }
  const cudaError_t error = injected(call);
  if (ends_all(error)) set_sticky(error);
  return error;
}

cudaError_t keep(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace standin

using standin::answer;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define STANDIN_NAME(name, value, text) \
  case name:                            \
    return #name;
    STANDIN_ERRORS(STANDIN_NAME)
#undef STANDIN_NAME
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define STANDIN_TEXT(name, value, text) \
  case name:                            \
    return text;
    STANDIN_ERRORS(STANDIN_TEXT)
#undef STANDIN_TEXT
  }
  return "unrecognized error code";
}
cudaError_t cudaPeekAtLastError() {
  const cudaError_t sticky = standin::sticky_error();
  return sticky != cudaSuccess ? sticky : standin::last_error;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  standin::last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  return answer("cudaGetDeviceCount", [&] {
    *count = standin::hardware().devices;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}
cudaError_t cudaSetDevice(int device) {
  return answer("cudaSetDevice", [&] {
    if (device < 0 || device >= standin::hardware().devices) return cudaErrorInvalidDevice;
    standin::device = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDevice(int* device) {
  return answer("cudaGetDevice", [&] {
    *device = standin::device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return answer("cudaGetDeviceProperties", [&] {
    const standin::Hardware hardware = standin::hardware();
    if (device < 0 || device >= hardware.devices) return cudaErrorInvalidDevice;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "Stand-in");
    properties->totalGlobalMem = hardware.memory;
    properties->sharedMemPerBlock = 48 << 10;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 64 << 10;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = standin::most_threads;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = standin::most_threads;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 0x7fffffff;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->major = hardware.major;
    properties->minor = hardware.minor;
    properties->multiProcessorCount = hardware.multiprocessors;
    properties->concurrentKernels = 1;
    properties->pciBusID = device + 1;
    properties->asyncEngineCount = 3;
    properties->unifiedAddressing = 1;
    properties->memoryBusWidth = 5120;
    properties->l2CacheSize = 50 << 20;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerMultiprocessor = 228 << 10;
    properties->sharedMemPerBlockOptin = standin::most_shared;
    properties->maxBlocksPerMultiProcessor = 32;
    return cudaSuccess;
  });
}
cudaError_t cudaDriverGetVersion(int* version) {
  return answer("cudaDriverGetVersion", [&] {
    *version = standin::hardware().driver;
    return cudaSuccess;
  });
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  return answer("cudaRuntimeGetVersion", [&] {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}
