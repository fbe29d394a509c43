#include "plugins/devices/cpu/device/threads.h"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string_view>
#include <tuple>

namespace ftrain::cpu {
namespace {

bool placed_by_environment() {
  for (const char* name : {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

bool bound_by_launcher() {
  const auto value = [](const char* name) {
    const char* const text = std::getenv(name);
    return std::string_view(text == nullptr ? "" : text);
  };
  const std::string_view slurm = value("SLURM_CPU_BIND_TYPE");
  return value("OMPI_MCA_orte_bound_at_launch") == "1" ||
         (!slurm.empty() && !slurm.starts_with("none"));
}

// (package, core) of a hardware thread; where the system does not tell, each is a core.
std::pair<int, int> core_of(int thread) {
  const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(thread) + "/topology/";
  const auto number = [&](const char* name, int otherwise) {
    int number = 0;
    return std::ifstream(folder + name) >> number ? number : otherwise;
  };
  return {number("physical_package_id", 0), number("core_id", thread)};
}

// The process's, hardware threads of a core beside each other.
const std::vector<int>& cores_at_start() {
  static const std::vector<int> found = [] {
    std::vector<int> cores;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cores;
    std::vector<std::tuple<int, int, int>> places;
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &allowed)) continue;
      const auto [package, number] = core_of(core);
      places.emplace_back(package, number, core);
    }
    std::sort(places.begin(), places.end());
    for (const auto& [package, number, core] : places) cores.push_back(core);
    return cores;
  }();
  return found;
}

// Which of its core's hardware threads each one is comes first.
void cores_first(std::vector<int>& cores) {
  std::map<std::pair<int, int>, int> seen;
  std::vector<std::pair<int, int>> order;
  for (const int core : cores) order.emplace_back(seen[core_of(core)]++, core);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < cores.size(); ++i) cores[i] = order[i].second;
}

void bind_this_thread(std::vector<int>::const_iterator first,
                      std::vector<int>::const_iterator last) {
  cpu_set_t own;
  CPU_ZERO(&own);
  for (; first != last; ++first) CPU_SET(*first, &own);
  sched_setaffinity(0, sizeof own, &own);  // a wish: without it everything works
}

}  // namespace

int RankCores::threads() const {
  return std::max(1, static_cast<int>(cores.size()) / sharers);
}

RankCores share_of(const std::vector<int>& cores, int local_rank, int local_ranks) {
  const auto ranks = static_cast<std::size_t>(std::max(1, local_ranks));
  const std::size_t each = cores.size() / ranks;
  if (each == 0) return {.cores = cores, .sharers = local_ranks, .even = false};
  const auto first =
      cores.begin() + static_cast<std::ptrdiff_t>(each * static_cast<std::size_t>(local_rank));
  return {.cores = {first, first + static_cast<std::ptrdiff_t>(each)},
          .even = each * ranks == cores.size()};
}

RankCores cores_of_rank(int local_rank, int local_ranks) {
  const std::vector<int>& all = cores_at_start();
  RankCores mine;
  if (local_ranks > 1 && bound_by_launcher()) {
    // Bound to a socket or the like, several ranks may have been given the same cores.
    const auto machine = static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
    const int wanted = static_cast<int>(all.size()) * local_ranks;
    mine = {.cores = all, .sharers = std::max(1, (wanted + machine - 1) / machine), .given = true};
  } else {
    mine = share_of(all, local_rank, local_ranks);
  }
  cores_first(mine.cores);
  return mine;
}

void pin_threads(const std::string& policy, int local_rank, int local_ranks, int threads) {
  if (policy == "off" || placed_by_environment()) return;
  const RankCores mine = cores_of_rank(local_rank, local_ranks);
  if (mine.sharers > 1 || mine.cores.size() < static_cast<std::size_t>(threads)) return;
  const bool alone = local_ranks <= 1;
  if (policy == "auto") {
    const bool all = static_cast<long>(mine.cores.size()) >= sysconf(_SC_NPROCESSORS_ONLN);
    if (alone ? all : !mine.even) return;
  }
  if (!alone && !mine.given) bind_this_thread(mine.cores.begin(), mine.cores.end());
#pragma omp parallel num_threads(threads)
  if (const int thread = omp_get_thread_num(); thread > 0) {
    const auto own = mine.cores.begin() + thread;
    bind_this_thread(own, own + 1);
  }
}

}  // namespace ftrain::cpu
