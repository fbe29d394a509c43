#include "plugins/communicators/nccl/meeting.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "ftrain/base/error.h"

namespace ftrain::nccl {
namespace {

constexpr char between = '\n';

std::string line_of(const Seat& seat) {
  return seat.rank + between + seat.machine + between + seat.gpu + between + seat.reason;
}

Seat seat_of(const std::string& line) {
  std::string parts[4];
  std::size_t begin = 0;
  for (int i = 0; i < 4; ++i) {
    const std::size_t end = i < 3 ? line.find(between, begin) : line.size();
    parts[i] = line.substr(begin, end - begin);
    begin = end + 1;
  }
  return {parts[0], parts[1], parts[2], parts[3]};
}

// The kernel's own, so that containers of one machine have it in common.
std::string machine(const RankPlace& place) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  return std::getline(file, id) ? id : place.host;
}

}  // namespace

Seat own_seat(const RankPlace& place) {
  Seat seat{.rank = place.text(), .machine = machine(place), .gpu = {}, .reason = {}};
  int device = 0;
  char address[32] = {};
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetPCIBusId(address, sizeof address, device);
  if (error != cudaSuccess) {
    cudaGetLastError();
    seat.reason = cudaGetErrorString(error);
  } else {
    seat.gpu = address;
  }
  return seat;
}

void check_seats(const std::vector<Seat>& seats, int rank) {
  const auto refuse = [rank](std::size_t first, const std::string& message) {
    if (first == static_cast<std::size_t>(rank)) throw DeviceError(message);
    throw PeerError(message);
  };
  for (std::size_t r = 0; r < seats.size(); ++r) {
    if (seats[r].gpu.empty()) {
      refuse(r, seats[r].rank + " has no GPU, and NCCL exchanges between GPUs: " + seats[r].reason +
                    "; run it where there is one, or take [launch] communicator = \"mpi\" or "
                    "\"tcp\"");
    }
  }
  for (std::size_t r = 0; r < seats.size(); ++r) {
    for (std::size_t other = r + 1; other < seats.size(); ++other) {
      if (seats[r].gpu != seats[other].gpu || seats[r].machine != seats[other].machine) continue;
      refuse(r, seats[r].rank + " and " + seats[other].rank + " have the same GPU (" +
                    seats[r].gpu +
                    "), and NCCL wants one for each rank: start as many ranks on a machine as it "
                    "has GPUs, and look at LOCAL_RANK and CUDA_VISIBLE_DEVICES");
    }
  }
}

ncclUniqueId meet(Communicator& carrier, const Seat& seat) {
  std::vector<Seat> seats;
  for (const std::string& line : gather_texts(carrier, line_of(seat))) {
    seats.push_back(seat_of(line));
  }
  check_seats(seats, carrier.rank());

  std::string mine;  // the number, or why there is none
  bool made = false;
  if (carrier.rank() == 0) {
    ncclUniqueId id{};
    const ncclResult_t result = ncclGetUniqueId(&id);
    made = result == ncclSuccess;
    mine = made ? std::string(id.internal, sizeof id.internal) : text_of(result, nullptr);
  }
  std::int64_t length = made ? -1 : static_cast<std::int64_t>(mine.size());
  carrier.broadcast(&length, sizeof length, 0);
  mine.resize(length < 0 ? sizeof(ncclUniqueId) : static_cast<std::size_t>(length));
  carrier.broadcast(mine.data(), mine.size(), 0);
  if (length >= 0) {
    const std::string message = seats[0].rank + ": NCCL cannot start: " + mine;
    if (carrier.rank() == 0) throw CommunicationError(message);
    throw PeerError(message);
  }
  ncclUniqueId id{};
  std::memcpy(id.internal, mine.data(), sizeof id.internal);
  return id;
}

std::string text_of(ncclResult_t result, ncclComm_t comm) {
  std::string text = ncclGetErrorString(result);
  const char* const last = ncclGetLastError(comm);
  if (last != nullptr && *last != '\0') text += std::string(" (") + last + ")";
  return text;
}

}  // namespace ftrain::nccl
