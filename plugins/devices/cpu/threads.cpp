#include "plugins/devices/cpu/threads.h"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

namespace ftrain::cpu {
namespace {

bool placed_by_environment() {
  for (const char* name : {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

}  // namespace

void pin_threads(const std::string& policy, int local_rank, int threads) {
  cpu_set_t allowed;
  if (policy == "off" || placed_by_environment()) return;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  if (policy == "auto" && CPU_COUNT(&allowed) >= sysconf(_SC_NPROCESSORS_ONLN)) return;
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  }
  if (cores.size() < static_cast<std::size_t>((local_rank + 1) * threads)) return;
#pragma omp parallel num_threads(threads)
  if (const int thread = omp_get_thread_num(); thread > 0) {
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(cores[static_cast<std::size_t>(local_rank * threads + thread)], &own);
    sched_setaffinity(0, sizeof own, &own);  // a wish: without it everything works
  }
}

}  // namespace ftrain::cpu
