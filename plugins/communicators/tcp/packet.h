// Small messages of numbers and texts: what ranks tell each other beside their tensors.
//
// On the wire: a mark, the length, the fields. What does not begin with the mark is not ftrain.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "plugins/communicators/tcp/socket.h"

namespace ftrain::tcp {

class Packet {
 public:
  Packet() = default;
  explicit Packet(std::string bytes) : bytes_(std::move(bytes)) {}

  Packet& add(std::int64_t number);
  Packet& add(const std::string& text);

  // In the order in which they were added. CommunicationError where the packet ends before.
  std::int64_t number();
  std::string text();

  const std::string& bytes() const { return bytes_; }

 private:
  std::string take(std::size_t count);
  std::string bytes_;
  std::size_t at_ = 0;
};

// Puts together what arrives.
class PacketReader {
 public:
  enum class State { open, ended, stranger };
  // Takes what is there of one packet, without waiting, and nothing of what comes behind it.
  State read(const Socket& socket);
  bool has_packet() const { return packet_.has_value(); }
  Packet next();

 private:
  std::string buffer_;
  std::optional<Packet> packet_;
};

// False: the connection ended or the deadline came.
bool send_packet(const Socket& socket, const Packet& packet, Deadline deadline);

}  // namespace ftrain::tcp
