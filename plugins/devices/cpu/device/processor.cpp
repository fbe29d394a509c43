#include "plugins/devices/cpu/device/processor.h"

#include <hwy/targets.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>

#include "ftrain/base/error.h"

namespace ftrain::cpu {
namespace {

// From the least to the most that a processor can do.
constexpr std::string_view isas[] = {"plain", "avx2", "avx512"};

Processor read_processor() {
  std::map<std::string, std::string> lines;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    lines.emplace(line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1),
                  line.substr(colon + 2));
  }
  const std::string name = lines.contains("model name") ? lines["model name"] : "of unknown name";
  return {name, name + ", family " + lines["cpu family"] + " model " + lines["model"] +
                    " stepping " + lines["stepping"]};
}

}  // namespace

std::string best_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
  return "plain";
}

bool is_within(std::string_view isa, std::string_view most) {
  return std::find(std::begin(isas), std::end(isas), isa) <=
         std::find(std::begin(isas), std::end(isas), most);
}

bool has_bf16() {
#if defined(__x86_64__)
  return best_isa() == "avx512" && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

void limit_isa(const std::string& isa) {
  static std::mutex mutex;
  static std::string limit;
  const std::lock_guard lock(mutex);
  if (limit == isa) return;
  if (!limit.empty()) {
    throw DeviceError("[device] isa = \"" + isa + "\": this process already runs with \"" + limit +
                      "\", and the limit holds for the whole process; use one value");
  }
#if defined(__x86_64__)
  if (isa != best_isa()) {
    const auto most = isa == "avx2" ? dnnl::cpu_isa::avx2 : dnnl::cpu_isa::sse41;
    if (dnnl::set_max_cpu_isa(most) != dnnl::status::success) {
      throw DeviceError("[device] isa = \"" + isa +
                        "\": oneDNN was used before and cannot be limited any more");
    }
  }
  // On x86 a better target has a lower bit.
  if (isa == "avx2") hwy::DisableTargets(HWY_AVX2 - 1);
  if (isa == "plain") hwy::DisableTargets(HWY_SSE4 - 1);
#endif
  limit = isa;
}

const Processor& processor() {
  static const Processor known = read_processor();
  return known;
}

}  // namespace ftrain::cpu
