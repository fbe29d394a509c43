#include "core/train/environment.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "ftrain/plugin/abi.h"

namespace ftrain {

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
