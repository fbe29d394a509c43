// How the watchers of a job find each other: every rank connects to rank 0.
//
// Private to core/health. Collective. Failure: CommunicationError on rank 0, PeerError on the
// others, when a rank cannot reach rank 0.
#pragma once

#include <string>
#include <vector>

#include "core/health/link.h"
#include "ftrain/device/communicator.h"

namespace ftrain {

struct Meeting {
  std::vector<std::string> names;  // "rank 2 on b (process 4711)"
  std::vector<std::string> hosts;
  std::vector<Link> links;  // on rank 0 to every rank, by rank; on the others one, to rank 0
};

Meeting meet(Communicator& inner);

}  // namespace ftrain
