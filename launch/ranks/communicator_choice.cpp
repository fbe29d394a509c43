#include "launch/ranks/communicator_choice.h"

#include <algorithm>
#include <filesystem>

#include "ftrain/base/error.h"
#include "ftrain/base/log.h"

namespace ftrain::launch {
namespace {

// Whose memory the communicator of GPUs knows.
constexpr const char* gpu_device = "cuda";
constexpr const char* gpu_communicator = "nccl";

std::string for_host(const std::string& asked, const RankEnvironment& environment,
                     const HasPlugin& has) {
  const RankPlace& place = environment.place;
  std::string name = asked;
  if (name == "auto") {
    const bool there = has(environment.communicator);
    name = there || place.address.empty() ? environment.communicator : "tcp";
  }
  const std::string under =
      "[launch] communicator = \"" + name + "\" under " + environment.launcher + ": ";
  if (name == "local") {
    throw ConfigError(under + "it joins threads of one process; take auto, nccl, mpi or tcp");
  }
  if (name == "mpi" && environment.communicator != "mpi") {
    throw ConfigError(under +
                      "Open MPI finds no ranks there; take auto or tcp, or start the ranks by "
                      "mpirun");
  }
  if (name == "tcp" && place.address.empty()) {
    throw ConfigError(under +
                      "the environment must say where rank 0 listens: set MASTER_ADDR and "
                      "MASTER_PORT for all ranks");
  }
  return name;
}

}  // namespace

bool has_plugin(const Registry& registry, const std::string& name) {
  return std::any_of(registry.folders().begin(), registry.folders().end(), [&](const auto& folder) {
    return std::filesystem::exists(folder / (name + ".so"));
  });
}

std::string choose_to_start(const LaunchSettings& settings, bool mpirun, const HasPlugin& has) {
  const std::string& asked = settings.communicator;
  const bool starts = asked != "auto" && asked != "local";
  const bool wanted =
      settings.processes > 1 || !settings.hosts.empty() || settings.max_restarts > 0;
  if (asked == "local" && !settings.hosts.empty()) {
    throw ConfigError(
        "[launch] communicator = \"local\" joins threads of one process, but hosts are given; take "
        "mpi or tcp, or leave the hosts away");
  }
  if (!wanted || asked == "local") return "local";
  if (starts || !settings.hosts.empty()) {
    if (!mpirun) {
      throw ConfigError(
          "several processes are started by mpirun, which is in no folder of PATH; "
          "install Open MPI, or start the ranks by another launcher "
          "(docs/launching.md)" +
          std::string(settings.hosts.empty() ? ", or take [launch] communicator = \"local\"" : ""));
    }
    if (asked == gpu_communicator) return has("mpi") ? "mpi" : "tcp";
    return starts ? asked : "mpi";
  }
  if (mpirun && has("mpi")) return "mpi";
  if (settings.processes > 1) {
    log::info(std::to_string(settings.processes) + " ranks as threads of this process: " +
              (mpirun ? "the plugin mpi.so" : "mpirun") + " is not there");
  }
  return "local";
}

RankCommunicators choose_for_rank(const LaunchSettings& settings,
                                  const RankEnvironment& environment, const std::string& device,
                                  const HasPlugin& has) {
  const bool gpus = device == gpu_device;
  if (settings.communicator == gpu_communicator) {
    if (!gpus) {
      throw ConfigError(
          "[launch] communicator = \"nccl\" exchanges between GPUs, and [device] "
          "plugin is \"" +
          device + "\"; take auto, mpi or tcp, or [device] plugin = \"cuda\"");
    }
    return {for_host("auto", environment, has), gpu_communicator};
  }
  const std::string host = for_host(settings.communicator, environment, has);
  if (settings.communicator != "auto" || !gpus) return {host, ""};
  if (has(gpu_communicator)) return {host, gpu_communicator};
  log::info("the GPUs exchange through the host's memory, by " + host +
            ": the plugin nccl.so is not there");
  return {host, ""};
}

}  // namespace ftrain::launch
