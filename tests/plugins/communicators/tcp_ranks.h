// Ranks over TCP on this machine, as threads of a test.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/plugin/registry.h"
#include "plugins/communicators/tcp/socket.h"

namespace ftrain::tcp_ranks {

inline std::unique_ptr<Communicator> make() {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  const std::lock_guard lock(mutex);
  return registry.create<Communicator>("tcp", Table::empty("launch"));
}

// A port that nobody else gets while this one holds it; a rank 0 may listen there.
class Port {
 public:
  Port() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const int on = 1;
    ::setsockopt(socket_.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr address{};
    address.sa_family = AF_INET;
    EXPECT_EQ(::bind(socket_.fd(), &address, sizeof address), 0);
  }
  int number() const { return tcp::this_end(socket_).port; }

 private:
  tcp::Socket socket_;
};

inline RankPlace place_of(int rank, int size, const Port& port, const std::string& job = "test") {
  return {.rank = rank,
          .size = size,
          .host = "node0" + std::to_string(rank),
          .job = job,
          .address = "127.0.0.1",
          .port = port.number()};
}

using Body = std::function<void(Communicator&)>;

// Returns what the rank's error says; empty: none.
inline std::string run_rank(const RankPlace& place, const Body& body) {
  try {
    const auto communicator = make();
    communicator->connect(place);
    body(*communicator);
    return "";
  } catch (const CommunicationError& error) {
    return error.what();
  }
}

inline std::vector<std::string> on_places(const std::vector<RankPlace>& places, const Body& body) {
  std::vector<std::string> errors(places.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < places.size(); ++i) {
    threads.emplace_back([&, i] { errors[i] = run_rank(places[i], body); });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

inline std::vector<std::string> on_threads(int size, const Body& body) {
  const Port port;
  std::vector<RankPlace> places;
  for (int rank = 0; rank < size; ++rank) places.push_back(place_of(rank, size, port));
  return on_places(places, body);
}

inline void expect_no_errors(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

}  // namespace ftrain::tcp_ranks
