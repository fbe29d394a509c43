// How the GPUs of a job's ranks find each other: which one each rank has, and the number that rank
// 0 makes for NCCL, exchanged over a communicator that the ranks have already.
//
// Failure, before NCCL itself could say it less well: DeviceError on a rank without a GPU, or on
// the first of two that have the same one; PeerError with the same text on the others.
#pragma once

#include <nccl.h>

#include <string>
#include <vector>

#include "ftrain/device/communicator.h"

namespace ftrain::nccl {

// What a rank says of itself.
struct Seat {
  std::string rank;     // "rank 3 on node07"
  std::string machine;  // the same for all ranks of one machine, for others' never
  std::string gpu;      // its place on the bus; empty: it has none,
  std::string reason;   // and why
};

// This process's current device.
Seat own_seat(const RankPlace& place);

// Throws when the seats will not do.
void check_seats(const std::vector<Seat>& seats, int rank);

// Collective: what all ranks begin with. The carrier stays usable whatever is thrown.
ncclUniqueId meet(Communicator& carrier, const Seat& seat);

// NCCL's own words: "unhandled system error (Connection refused)".
std::string text_of(ncclResult_t result, ncclComm_t comm);

}  // namespace ftrain::nccl
