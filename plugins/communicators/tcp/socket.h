// Plain TCP sockets: owned descriptors, names and numbers of hosts, listening, and connecting to
// who may not be up yet. IPv4 and IPv6. Every socket is non-blocking.
//
// Failure: CommunicationError that names the address.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace ftrain::tcp {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket() { close(); }
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// A host's name or number, and a port of it.
struct Endpoint {
  std::string host;
  int port = 0;
  bool is_loopback() const;
  std::string text() const;  // "node01:29500", "[::1]:29500"
};

// On every interface of this machine, or on its loopback alone where `host` is one. Port 0: any.
Socket listen_at(const Endpoint& where);
// None where nobody waits.
std::optional<Socket> accept_from(const Socket& listener);
// Tries again until the deadline. `still_waiting` is told once, after ten seconds, why.
Socket connect_to(const Endpoint& where, Deadline deadline,
                  const std::function<void(const std::string& why)>& still_waiting = {});

// Numeric hosts.
Endpoint this_end(const Socket& socket);
Endpoint other_end(const Socket& socket);

// False: the deadline came first. `events` as poll() takes them.
bool wait_for(const Socket& socket, short events, Deadline deadline);
// "Connection refused"
std::string text_of_errno(int error);
// Each rank holds two sockets for every other one: raises this process's limit where it is lower.
void allow_descriptors(int count);

}  // namespace ftrain::tcp
