// Every rank connected to every other one, twice: one connection carries tensors, the other news:
// a rank fails and why, or ends in order. News need not wait behind tensors, and a connection that
// ends without news is a rank that died.
//
// Threads: abort() from any thread; the rest from the one thread that is in a collective.
// Failure: CommunicationError that names the rank; PeerError where another rank told of it. Once
// failed, all calls fail with the same reason.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/device/communicator.h"
#include "plugins/communicators/tcp/packet.h"
#include "plugins/communicators/tcp/socket.h"

namespace ftrain::tcp {

class Mesh {
 public:
  // Returns when all ranks are connected.
  Mesh(const RankPlace& place, Deadline deadline);
  // Tells the others that this is an orderly end, or why it is not.
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  const RankPlace& place() const { return place_; }
  // "rank 3 on node07"
  std::string name_of(int rank) const;
  const Socket& tensors(int rank) const { return peer(rank).tensors; }

  // Readable when hear() has something to do.
  const Socket& news() const { return news_; }
  // Takes in what the others told. Throws where one of them failed.
  void hear();
  void throw_if_failed();

  // The connection for tensors broke: throws what is known of the reason.
  [[noreturn]] void broken(int rank, const std::string& during);
  // This rank found a failure: tells everyone and throws.
  [[noreturn]] void fail(const std::string& what);
  void abort(const std::string& reason);

  // Held while a collective runs.
  std::mutex& in_collective() { return in_collective_; }

 private:
  struct Peer {
    std::string host;
    Socket tensors, news;
    PacketReader reader;
    bool gone = false;
  };
  const Peer& peer(int rank) const { return peers_[static_cast<std::size_t>(rank)]; }
  void connect_lower_ranks(const std::vector<Endpoint>& listeners, const std::string& token,
                           Deadline deadline);
  void let_higher_ranks_in(const Socket& listener, const std::string& token, Deadline deadline);
  void watch_news();
  void hear_of(int rank);
  // The first one counts. False: there is one already.
  bool set_failure(const std::string& what, bool heard);
  void tell_all(std::int64_t kind, const std::string& what);

  RankPlace place_;
  std::vector<Peer> peers_;
  Socket news_, wake_;
  std::mutex in_collective_;
  std::mutex failure_mutex_;
  std::string failure_;
  bool heard_ = false;
  std::mutex tell_mutex_;
};

}  // namespace ftrain::tcp
