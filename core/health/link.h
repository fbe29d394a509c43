// The connections over which watchers talk: short frames over TCP that never block.
//
// Private to core/health. Ownership: a Link or Listener closes its socket. Threads: one at a time.
// Failure: a link that breaks says so by broken(); CommunicationError when nothing can listen.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ftrain {

enum class FrameKind : std::uint8_t {
  hello = 1,  // to rank 0: token, rank
  welcome,    // its answer: token
  beat,       // a rank's status, or a sign of life of rank 0
  trouble,    // to rank 0: a collective failed here, and how
  failure,    // to rank 0: this rank failed, and how
  finding,    // to all: the job is over, and why
  goodbye,
};

struct Frame {
  FrameKind kind{};
  std::string body;
};

// Words and numbers in a frame's body, read in the order in which they were put.
class Body {
 public:
  Body() = default;
  explicit Body(std::string text) : text_(std::move(text)) {}
  Body& put(std::int64_t number);
  Body& put(std::string_view word);
  // Zero or empty where the body has ended.
  std::int64_t number();
  std::string word();
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::size_t read_ = 0;
};

class Link {
 public:
  Link() = default;
  explicit Link(int socket);
  ~Link();
  Link(Link&& other) noexcept;
  Link& operator=(Link&& other) noexcept;

  // A connection to a numeric or named address; an open link or a broken one, within `seconds`.
  static Link to(const std::string& address, int port, double seconds);

  int socket() const { return socket_; }
  bool open() const { return socket_ >= 0; }
  // Neither end has closed it on purpose: the network gave it up.
  bool lost() const { return lost_; }
  bool unsent() const { return !out_.empty(); }
  // What to poll for.
  short events() const;

  // Queues a frame and sends what can be sent now.
  void send(FrameKind kind, std::string_view body);
  void flush();
  // Takes what has arrived; then frames can be taken out until there is none. A link whose other
  // end has closed is no longer open, its last frames are still there.
  void receive();
  std::optional<Frame> take();
  // Nothing more comes from here; what the other end still says can be received.
  void finish();
  void close();

 private:
  void fail(int error);
  int socket_ = -1;
  bool lost_ = false;
  std::string in_, out_;
};

class Listener {
 public:
  // Any free port on all interfaces.
  Listener();
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int socket() const { return socket_; }
  int port() const { return port_; }
  Link accept();

 private:
  int socket_ = -1, port_ = 0;
};

// This machine's addresses in numbers, those of the machine alone (loopback) last.
struct OwnAddresses {
  std::vector<std::string> outside, loopback;
};
OwnAddresses own_addresses();

}  // namespace ftrain
