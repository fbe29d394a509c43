#include "plugins/devices/cpu/tune/answers.h"

#include <oneapi/dnnl/dnnl.hpp>

#include "ftrain/plugin/abi.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/device/processor.h"

namespace ftrain::cpu {

Circumstances circumstances_of(const KernelEnvironment& environment) {
  const dnnl_version_t* version = dnnl::version();
  const KernelOptions options = options_of(environment);
  std::string rest = "oneDNN " + std::to_string(version->major) + "." +
                     std::to_string(version->minor) + "." + std::to_string(version->patch) +
                     ", ftrain " FTRAIN_VERSION " " FTRAIN_BUILD ", " + environment.isa + ", " +
                     std::to_string(environment.threads) + " threads";
  if (options.winograd) rest += ", winograd";
  if (options.bf16) rest += ", bf16";
  return {processor().kind, std::move(rest)};
}

std::filesystem::path answers_file() {
  return cache_file("kernels.json");
}

}  // namespace ftrain::cpu
