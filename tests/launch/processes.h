// Processes of the system, for tests that kill ranks: who is whose child, and which rank is it?
#pragma once

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace launch_test {

inline std::string file_of_process(pid_t process, const char* name) {
  std::ifstream file("/proc/" + std::to_string(process) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The process itself and all that descend from it.
inline std::vector<pid_t> family_of(pid_t ancestor) {
  std::multimap<pid_t, pid_t> children;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename().string();
    pid_t process = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), process);
    if (error != std::errc() || end != name.data() + name.size()) continue;
    // "PID (NAME) STATE PARENT ...", where NAME may hold anything.
    const std::string stat = file_of_process(process, "stat");
    const auto after = stat.rfind(')');
    if (after == std::string::npos) continue;
    std::istringstream rest(stat.substr(after + 1));
    std::string state;
    pid_t parent = 0;
    if (rest >> state >> parent) children.emplace(parent, process);
  }
  std::vector<pid_t> family{ancestor};
  for (std::size_t i = 0; i < family.size(); ++i) {
    const auto [first, last] = children.equal_range(family[i]);
    for (auto it = first; it != last; ++it) family.push_back(it->second);
  }
  return family;
}

// The value of a variable in a process's environment.
inline std::optional<std::string> variable_of(pid_t process, const std::string& name) {
  std::istringstream all(file_of_process(process, "environ"));
  for (std::string one; std::getline(all, one, '\0');) {
    if (one.starts_with(name + "=")) return one.substr(name.size() + 1);
  }
  return std::nullopt;
}

// The processes below `launcher` that are ranks which mpirun started, by rank.
inline std::map<int, pid_t> ranks_below(pid_t launcher) {
  std::map<int, pid_t> ranks;
  for (const pid_t process : family_of(launcher)) {
    const auto rank = variable_of(process, "OMPI_COMM_WORLD_RANK");
    if (rank) ranks.emplace(std::stoi(*rank), process);
  }
  return ranks;
}

}  // namespace launch_test
