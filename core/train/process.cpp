#include "core/train/process.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/plugin/abi.h"

namespace ftrain {

std::size_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::size_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib << 10;
  }
  return 0;
}

std::string environment_json(const std::string& device) {
  utsname system{};
  uname(&system);
  nlohmann::ordered_json json;
  json["ftrain"] = FTRAIN_VERSION;
  json["build"] = FTRAIN_BUILD;
  json["device"] = device;
  json["host"] = system.nodename;
  json["system"] = std::string(system.sysname) + " " + system.release + " " + system.machine;
  json["cores"] = std::thread::hardware_concurrency();
  json["process"] = getpid();
  for (const char* name : {"OMP_NUM_THREADS", "FTRAIN_PLUGIN_PATH", "LD_PRELOAD"}) {
    if (const char* value = std::getenv(name)) json["variables"][name] = value;
  }
  return json.dump(2) + "\n";
}

}  // namespace ftrain
