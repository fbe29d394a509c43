// Which cores OpenMP's threads may run on.
#pragma once

#include <string>

namespace ftrain::cpu {

// Gives each OpenMP thread of the calling rank a core of its own: of the process's cores, in order,
// the rank's share. The calling thread itself stays free, since threads that it starts later would
// inherit its place; the others leave it theirs.
//
// policy: "off" does nothing. "auto" does nothing either unless someone gave this process some of
// the machine's cores: on a machine that all may use, two processes would be pinned to the same
// cores. "on" trusts the job that nobody else computes here. Nothing is done where the threads are
// placed already (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY, KMP_AFFINITY), or where there are
// fewer cores than threads.
void pin_threads(const std::string& policy, int local_rank, int threads);

}  // namespace ftrain::cpu
