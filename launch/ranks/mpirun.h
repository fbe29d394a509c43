// One start of a job's ranks by Open MPI's mpirun, from its command line to its end.
//
// Output goes on as it comes, without what mpirun says itself; signals are handed to the ranks.
// Threads: the main one. Failure: DeviceError when mpirun cannot be started; how the ranks ended is
// in the result.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/ranks/hosts.h"
#include "launch/ranks/stream_filter.h"

namespace ftrain::launch {

struct MpirunJob {
  std::string mpirun;  // its path
  int processes = 1;
  std::vector<Host> hosts;         // none: this machine
  std::string agent;               // what reaches them; empty: ssh
  double patience = 600;           // seconds until all ranks have joined
  bool meets = false;              // the ranks need an address to meet at
  std::vector<std::string> words;  // of `ftrain`, without its name
};

struct Ending {
  int code = 0;          // of mpirun
  bool stopped = false;  // a second signal ended it
  bool late = false;     // the ranks had not joined in time
  std::vector<RankReport> reports;
  std::vector<Notice> notices;
};

Ending run_mpirun(const MpirunJob& job);

}  // namespace ftrain::launch
