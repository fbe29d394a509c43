#include "plugins/communicators/tcp/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>

#include "ftrain/base/error.h"

namespace ftrain::tcp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// For how long one address of a host is tried before the next.
constexpr auto one_try = seconds(5);

void set(const Socket& socket, int level, int option, int value) {
  // Options only tune: what a kernel refuses is left as it is.
  ::setsockopt(socket.fd(), level, option, &value, sizeof value);
}

// A vanished machine sends nothing, not even an end: keepalive finds it within half a minute.
void tune(const Socket& socket) {
  set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(socket, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

Socket open_socket(int family) {
  return Socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses resolve(const Endpoint& where, std::string* why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(where.host.c_str(), std::to_string(where.port).c_str(), &hints, &found);
  if (error != 0) {
    *why = "the name is not known: " + std::string(::gai_strerror(error));
    found = nullptr;
  }
  return {found, &::freeaddrinfo};
}

Endpoint endpoint_of(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "0";
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, port,
                sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  std::string name = host;
  // A socket for both families gives IPv4 numbers this way.
  if (name.starts_with("::ffff:") && name.find('.') != std::string::npos) name.erase(0, 7);
  return {name, std::stoi(port)};
}

// A socket that reaches the port it came from by chance is connected to itself.
bool is_connected_to_itself(const Socket& socket) {
  const Endpoint a = this_end(socket), b = other_end(socket);
  return a.port == b.port && a.host == b.host;
}

std::optional<Socket> try_address(const addrinfo& address, Deadline deadline, std::string* why) {
  Socket socket = open_socket(address.ai_family);
  if (!socket) {
    *why = text_of_errno(errno);
    return {};
  }
  tune(socket);
  if (::connect(socket.fd(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) {
      *why = text_of_errno(errno);
      return {};
    }
    if (!wait_for(socket, POLLOUT, std::min(deadline, Clock::now() + one_try))) {
      *why = "no answer";
      return {};
    }
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      *why = text_of_errno(error);
      return {};
    }
  }
  if (is_connected_to_itself(socket)) {
    *why = "nobody listens";
    return {};
  }
  return socket;
}

// Empty where this machine lacks the family.
Socket listener_of(int family, bool loopback, int port) {
  Socket socket = open_socket(family);
  if (!socket) return {};
  set(socket, SOL_SOCKET, SO_REUSEADDR, 1);  // the port of a job that was just ended
  sockaddr_storage address{};
  socklen_t length;
  if (family == AF_INET6) {
    set(socket, IPPROTO_IPV6, IPV6_V6ONLY, loopback ? 1 : 0);
    auto& in6 = reinterpret_cast<sockaddr_in6&>(address);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(static_cast<std::uint16_t>(port));
    in6.sin6_addr = loopback ? in6addr_loopback : in6addr_any;
    length = sizeof in6;
  } else {
    auto& in = reinterpret_cast<sockaddr_in&>(address);
    in.sin_family = AF_INET;
    in.sin_port = htons(static_cast<std::uint16_t>(port));
    in.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
    length = sizeof in;
  }
  if (::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::listen(socket.fd(), SOMAXCONN) != 0) {
    if (errno == EADDRNOTAVAIL) return {};
    throw std::system_error(errno, std::generic_category());
  }
  return socket;
}

}  // namespace

void Socket::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool Endpoint::is_loopback() const {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::string Endpoint::text() const {
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Socket listen_at(const Endpoint& where) {
  const bool loopback = where.is_loopback();
  try {
    if (!loopback || where.host == "::1") {
      Socket both = listener_of(AF_INET6, loopback, where.port);
      if (both) return both;
    }
    Socket four = listener_of(AF_INET, loopback, where.port);
    if (four) return four;
    throw CommunicationError("cannot listen at " + where.text() + ": no such address here");
  } catch (const std::system_error& error) {
    throw CommunicationError("cannot listen at port " + std::to_string(where.port) + ": " +
                             text_of_errno(error.code().value()));
  }
}

std::optional<Socket> accept_from(const Socket& listener) {
  const int fd = ::accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) {
    Socket socket(fd);
    tune(socket);
    return socket;
  }
  // A guest that left before it was let in is nobody's failure.
  if (errno != EMFILE && errno != ENFILE) return {};
  throw CommunicationError("cannot accept a connection: " + text_of_errno(errno) +
                           "; raise the limit of open files (ulimit -n)");
}

Socket connect_to(const Endpoint& where, Deadline deadline,
                  const std::function<void(const std::string& why)>& still_waiting) {
  const Deadline begin = Clock::now();
  bool told = false;
  auto pause = milliseconds(20);
  std::string why;
  while (true) {
    const Addresses addresses = resolve(where, &why);
    for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
      if (auto socket = try_address(*a, deadline, &why)) return std::move(*socket);
    }
    const Deadline now = Clock::now();
    if (now + pause >= deadline) {
      const auto waited = std::chrono::duration_cast<seconds>(now - begin).count();
      throw CommunicationError("cannot reach " + where.text() + ": " + why + " (tried for " +
                               std::to_string(waited) + " s)");
    }
    if (!told && still_waiting && now - begin > seconds(10)) {
      still_waiting(why);
      told = true;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 3 / 2, milliseconds(500));
  }
}

Endpoint this_end(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &length);
  return endpoint_of(address, length);
}

Endpoint other_end(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getpeername(socket.fd(), reinterpret_cast<sockaddr*>(&address), &length);
  return endpoint_of(address, length);
}

bool wait_for(const Socket& socket, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
    pollfd entry{socket.fd(), events, 0};
    const int ready =
        ::poll(&entry, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000)));
    if (ready > 0) return true;
    if (left <= 0) return false;
  }
}

std::string text_of_errno(int error) {
  return std::generic_category().message(error);
}

void allow_descriptors(int count) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto needed = static_cast<rlim_t>(count);
  if (limit.rlim_cur >= needed) return;
  limit.rlim_cur = std::min(needed, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace ftrain::tcp
