#include "core/base/process.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

namespace ftrain {

namespace {

// The number behind a word of a file of the system, in KiB there; 0 when there is none.
std::size_t bytes_behind(const char* file, const std::string& name) {
  std::ifstream status(file);
  std::string word;
  while (status >> word) {
    std::size_t kib = 0;
    if (word == name && status >> kib) return kib << 10;
  }
  return 0;
}

std::optional<std::size_t> number_in(const std::string& file) {
  std::ifstream stream(file);
  std::size_t number = 0;
  if (stream >> number) return number;
  return std::nullopt;  // "max" too
}

}  // namespace

std::size_t peak_memory_bytes() {
  return bytes_behind("/proc/self/status", "VmHWM:");
}

std::size_t memory_bytes() {
  return bytes_behind("/proc/self/status", "VmRSS:");
}

std::size_t available_memory_bytes() {
  std::size_t available = bytes_behind("/proc/meminfo", "MemAvailable:");
  // Control groups, version 2 and 1, as a container sees its own.
  const std::pair<const char*, const char*> groups[] = {
      {"memory.max", "memory.current"},
      {"memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"}};
  for (const auto& [limit_name, used_name] : groups) {
    const std::string root = "/sys/fs/cgroup/";
    const auto limit = number_in(root + limit_name), used = number_in(root + used_name);
    if (limit && used) available = std::min(available, *limit - std::min(*limit, *used));
  }
  return available;
}

}  // namespace ftrain
