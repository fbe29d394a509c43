#include "core/health/link.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// A machine that vanishes answers no packet: its connection breaks after so many seconds.
constexpr int kUnansweredSeconds = 15;
// What is longer is no frame of ours.
constexpr std::uint32_t kLongest = 1 << 20;

void set(int socket, int level, int option, int value) {
  setsockopt(socket, level, option, &value, sizeof value);
}

void prepare(int socket) {
  set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnansweredSeconds * 1000);
  set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPIDLE, kUnansweredSeconds / 3);
  set(socket, IPPROTO_TCP, TCP_KEEPINTVL, kUnansweredSeconds / 3);
  set(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

// Connected within the time, or -1.
int connect_to(const addrinfo& target, double seconds) {
  const int socket = ::socket(target.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  if (connect(socket, target.ai_addr, target.ai_addrlen) == 0) return socket;
  if (errno == EINPROGRESS) {
    pollfd wait{socket, POLLOUT, 0};
    int error = 0;
    socklen_t size = sizeof error;
    if (poll(&wait, 1, static_cast<int>(seconds * 1000)) == 1 &&
        getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) {
      return socket;
    }
  }
  ::close(socket);
  return -1;
}

int listen_on(int family) {
  const int socket = ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  sockaddr_storage any{};
  any.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET6) set(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  const socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (bind(socket, reinterpret_cast<sockaddr*>(&any), size) == 0 && listen(socket, 1024) == 0) {
    return socket;
  }
  const int error = errno;
  ::close(socket);
  errno = error;
  return -1;
}

}  // namespace

Body& Body::put(std::int64_t number) {
  text_.append(reinterpret_cast<const char*>(&number), sizeof number);
  return *this;
}

Body& Body::put(std::string_view word) {
  put(static_cast<std::int64_t>(word.size()));
  text_.append(word);
  return *this;
}

std::int64_t Body::number() {
  std::int64_t number = 0;
  if (text_.size() - read_ < sizeof number) return 0;
  std::memcpy(&number, text_.data() + read_, sizeof number);
  read_ += sizeof number;
  return number;
}

std::string Body::word() {
  const std::int64_t size = number();
  if (size < 0 || static_cast<std::uint64_t>(size) > text_.size() - read_) return {};
  std::string word = text_.substr(read_, static_cast<std::size_t>(size));
  read_ += word.size();
  return word;
}

Link::Link(int socket) : socket_(socket) {
  if (socket_ >= 0) prepare(socket_);
}

Link::~Link() {
  close();
}

Link::Link(Link&& other) noexcept {
  *this = std::move(other);
}

Link& Link::operator=(Link&& other) noexcept {
  std::swap(socket_, other.socket_);
  std::swap(lost_, other.lost_);
  std::swap(in_, other.in_);
  std::swap(out_, other.out_);
  return *this;
}

Link Link::to(const std::string& address, int port, double seconds) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  int socket = -1;
  for (const addrinfo* target = found; target != nullptr && socket < 0; target = target->ai_next) {
    socket = connect_to(*target, seconds);
  }
  freeaddrinfo(found);
  return Link(socket);
}

short Link::events() const {
  return static_cast<short>(unsent() ? POLLIN | POLLOUT : POLLIN);
}

void Link::send(FrameKind kind, std::string_view body) {
  if (!open()) return;
  const auto size = static_cast<std::uint32_t>(body.size());
  out_.append(reinterpret_cast<const char*>(&size), sizeof size);
  out_ += static_cast<char>(kind);
  out_.append(body);
  flush();
}

void Link::flush() {
  while (open() && !out_.empty()) {
    const ssize_t sent = ::send(socket_, out_.data(), out_.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      out_.erase(0, static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return;
    } else if (errno != EINTR) {
      // What it said before it went may still be there to read.
      const int error = errno;
      receive();
      fail(error);
    }
  }
}

void Link::receive() {
  char buffer[4096];
  while (open()) {
    const ssize_t got = recv(socket_, buffer, sizeof buffer, 0);
    if (got > 0) {
      in_.append(buffer, static_cast<std::size_t>(got));
    } else if (got == 0) {
      close();
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return;
    } else if (errno != EINTR) {
      fail(errno);
    }
  }
}

std::optional<Frame> Link::take() {
  std::uint32_t size = 0;
  constexpr std::size_t head = sizeof size + 1;
  if (in_.size() < head) return {};
  std::memcpy(&size, in_.data(), sizeof size);
  if (size > kLongest) {  // a stranger
    in_.clear();
    close();
    return {};
  }
  if (in_.size() < head + size) return {};
  Frame frame{static_cast<FrameKind>(in_[sizeof size]), in_.substr(head, size)};
  in_.erase(0, head + size);
  return frame;
}

void Link::finish() {
  flush();
  if (open() && !unsent()) shutdown(socket_, SHUT_WR);
}

void Link::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
  out_.clear();
}

void Link::fail(int error) {
  if (!open()) return;
  lost_ = error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH ||
          error == EHOSTDOWN || error == ENETDOWN;
  close();
}

Listener::Listener() : socket_(listen_on(AF_INET6)) {
  if (socket_ < 0) socket_ = listen_on(AF_INET);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (socket_ < 0 || getsockname(socket_, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    throw CommunicationError(
        std::string("rank 0 cannot listen for the other ranks' watchers on any port: ") +
        std::strerror(errno));
  }
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                            : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

Listener::~Listener() {
  if (socket_ >= 0) ::close(socket_);
}

Link Listener::accept() {
  return Link(accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

OwnAddresses own_addresses() {
  OwnAddresses found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return found;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
    char text[INET6_ADDRSTRLEN] = {};
    if (one->ifa_addr->sa_family == AF_INET) {
      const auto* address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      const auto* address = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      // Such an address means something on its own link alone.
      if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;
      inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text);
    } else {
      continue;
    }
    ((one->ifa_flags & IFF_LOOPBACK) != 0 ? found.loopback : found.outside).emplace_back(text);
  }
  freeifaddrs(list);
  return found;
}

}  // namespace ftrain
