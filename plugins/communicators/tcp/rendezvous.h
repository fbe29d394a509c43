// How the ranks of a job find each other: rank 0 waits where everyone knows, each rank comes there
// and says who it is and a text of its own; when all have come, each gets what everyone said.
//
// Ranks of other jobs, of another number of ranks and strangers are sent away without harm to those
// who belong here. Failure: CommunicationError on every rank that came, with the reason: who has
// not come, who is there twice, who has left.
#pragma once

#include <string>
#include <vector>

#include "ftrain/device/communicator.h"
#include "plugins/communicators/tcp/packet.h"
#include "plugins/communicators/tcp/socket.h"

namespace ftrain::tcp {

struct Member {
  std::string host;     // as the rank calls its machine
  std::string address;  // a number that other ranks reach it at
  std::string text;     // its own
};

struct Roster {
  std::vector<Member> members;  // by rank
  std::string token;            // which only members know
};

Roster gather(const RankPlace& place, const std::string& text, Deadline deadline);

// Guests of a listener, each with its first packet. One that says nothing keeps nobody waiting.
class Reception {
 public:
  explicit Reception(const Socket& listener) : listener_(listener) {}
  struct Guest {
    Socket socket;
    Packet hello;
  };
  // None: nobody came within `patience`.
  std::optional<Guest> next(std::chrono::milliseconds patience);

 private:
  struct Pending {
    Socket socket;
    PacketReader reader;
    Deadline until;
  };
  const Socket& listener_;
  std::vector<Pending> pending_;
};

// "ranks 2, 5-7"
std::string text_of_ranks(const std::vector<int>& ranks);

}  // namespace ftrain::tcp
