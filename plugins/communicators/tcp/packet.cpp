#include "plugins/communicators/tcp/packet.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ftrain/base/error.h"

namespace ftrain::tcp {
namespace {

constexpr std::uint32_t mark = 0x31725446;  // "FTr1"
constexpr std::uint32_t largest = 64u << 20;
struct Head {
  std::uint32_t mark, length;
};

Head head_of(const std::string& bytes) {
  Head head;
  std::memcpy(&head, bytes.data(), sizeof head);
  return head;
}

}  // namespace

Packet& Packet::add(std::int64_t number) {
  bytes_.append(reinterpret_cast<const char*>(&number), sizeof number);
  return *this;
}

Packet& Packet::add(const std::string& text) {
  add(static_cast<std::int64_t>(text.size()));
  bytes_ += text;
  return *this;
}

std::string Packet::take(std::size_t count) {
  if (bytes_.size() - at_ < count) {
    throw CommunicationError("a message of another rank is cut short: another version of ftrain?");
  }
  at_ += count;
  return bytes_.substr(at_ - count, count);
}

std::int64_t Packet::number() {
  std::int64_t number;
  std::memcpy(&number, take(sizeof number).data(), sizeof number);
  return number;
}

std::string Packet::text() {
  return take(static_cast<std::size_t>(number()));
}

PacketReader::State PacketReader::read(const Socket& socket) {
  char chunk[16384];
  while (!packet_) {
    std::size_t whole = sizeof(Head);
    if (buffer_.size() >= sizeof(Head)) {
      const Head head = head_of(buffer_);
      if (head.mark != mark || head.length > largest) return State::stranger;
      whole += head.length;
      if (buffer_.size() == whole) {
        packet_.emplace(buffer_.substr(sizeof(Head)));
        buffer_.clear();
        break;
      }
    }
    const std::size_t most = std::min(sizeof chunk, whole - buffer_.size());
    const ssize_t got = ::recv(socket.fd(), chunk, most, MSG_DONTWAIT);
    if (got > 0) {
      buffer_.append(chunk, static_cast<std::size_t>(got));
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) {
      return State::ended;
    } else if (errno != EINTR) {
      break;
    }
  }
  return State::open;
}

Packet PacketReader::next() {
  Packet packet = std::move(*packet_);
  packet_.reset();
  return packet;
}

bool send_packet(const Socket& socket, const Packet& packet, Deadline deadline) {
  const Head head{mark, static_cast<std::uint32_t>(packet.bytes().size())};
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  bytes += packet.bytes();
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n =
        ::send(socket.fd(), bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(socket, POLLOUT, deadline)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace ftrain::tcp
