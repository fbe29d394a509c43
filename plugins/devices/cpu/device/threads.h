// Which cores a rank's threads run on.
#pragma once

#include <string>
#include <vector>

namespace ftrain::cpu {

struct RankCores {
  std::vector<int>
      cores;            // hardware threads of one core last: the first ones are cores of their own
  int sharers = 1;      // ranks that compute on them; 1: this one alone
  bool even = true;     // every rank of the machine has as many
  bool given = false;   // by the launcher, to this process
  int threads() const;  // that the rank has room for
};

// Equal parts of `cores` in order, where there are enough; else all cores for all ranks.
RankCores share_of(const std::vector<int>& cores, int local_rank, int local_ranks);

// The rank's share of the cores that this process may use (as it was when the process first asked).
// A launcher that bound each process (Open MPI, Slurm) has divided them already.
RankCores cores_of_rank(int local_rank, int local_ranks);

// Gives each OpenMP thread of the calling rank a core of its own among the rank's. The calling
// thread and the threads that it starts later (decoding, collectives) may use all of the rank's
// cores; a rank that is alone on the machine leaves them free. Other threads of the process, those
// of ranks that are threads, are left alone.
//
// policy: "off" does nothing. "auto" does nothing either unless several ranks share the machine's
// cores evenly, or someone gave this process some of them: on a machine that all may use, two
// processes would be pinned to the same cores. "on" trusts the job that nobody else computes here.
// Nothing is done where the threads are placed already (OMP_PROC_BIND, OMP_PLACES,
// GOMP_CPU_AFFINITY, KMP_AFFINITY), or where there are fewer cores than ranks or threads.
void pin_threads(const std::string& policy, int local_rank, int local_ranks, int threads);

}  // namespace ftrain::cpu
