// The transfers of one collective: sends and receives that go on together, to and from any number
// of ranks, with one thread that sleeps while nothing moves.
//
// What is given for one rank is sent in the order in which it was given, and so it is received.
// Before the first bytes in each direction goes a head that says which collective they belong to:
// ranks that are in different ones notice it. Threads: one. Failure: as the mesh's.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ftrain/base/dtype.h"
#include "ftrain/device/communicator.h"
#include "plugins/communicators/tcp/mesh.h"

namespace ftrain::tcp {

enum class Operation : std::uint8_t { all_reduce, all_gather, reduce_scatter, broadcast, barrier };

// What all ranks of a group must agree on, as it is on the wire.
struct Call {
  std::uint64_t group = 0, number = 0;  // of the group's collectives, counted from 1
  std::uint64_t bytes = 0;
  std::int32_t root = 0;
  Operation operation = Operation::barrier;
  DType dtype = DType::u8;
  std::uint16_t reserved = 0;
  Reduction reduction = Reduction::sum;
  std::uint32_t layout = 1;  // of this head

  bool operator==(const Call&) const = default;
  // "all_reduce of 400 bytes of f32 (sum)"
  std::string text() const;
};

class Exchange {
 public:
  explicit Exchange(Mesh& mesh)
      : mesh_(mesh), lines_(static_cast<std::size_t>(mesh.place().size)) {}

  void begin(const Call& call);
  // Ranks are the mesh's. The bytes stay in place until run() returns.
  void send(int rank, const void* data, std::size_t bytes);
  // Once all are there, run() calls `arrived`: it may give more to send and receive.
  void receive(int rank, void* data, std::size_t bytes, std::function<void()> arrived = {});
  // Returns when all that was given is done.
  void run();

 private:
  template <class Byte>
  struct Item {
    Byte* data;
    std::size_t bytes;
    std::function<void()> arrived = {};
  };
  // Items before `next` are done, `done` bytes of the next one are.
  template <class Byte>
  struct Direction {
    std::vector<Item<Byte>> items = {};
    std::size_t next = 0, done = 0, head = 0;
    bool stuck = false;
    bool waits() const { return next < items.size(); }
    bool can_move() const { return waits() && !stuck; }
  };
  struct Line {
    Direction<const std::byte> out;
    Direction<std::byte> in;
    Call theirs;
    bool active = false;
  };

  Line& open_line(int rank);
  bool move_out(int rank, Line& line);
  bool move_in(int rank, Line& line);
  void check(int rank, const Call& theirs);
  void sleep();
  void look_for_strays();

  Mesh& mesh_;
  Call call_;
  std::vector<Line> lines_;
  std::vector<int> active_;
  std::size_t left_ = 0;  // items
  std::vector<pollfd> polled_;
};

}  // namespace ftrain::tcp
