#include "plugins/communicators/tcp/exchange.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ftrain/base/error.h"

namespace ftrain::tcp {
namespace {

static_assert(sizeof(Call) == 40 && std::has_unique_object_representations_v<Call>);

// At most so many bytes with one call: both directions and all ranks get their turn.
constexpr std::size_t turn = std::size_t(1) << 20;
// After so long without any move, a look at who is not waited for may tell what is wrong.
constexpr int longest_sleep = 1000;  // milliseconds

bool is_later(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::all_reduce:
      return "all_reduce";
    case Operation::all_gather:
      return "all_gather";
    case Operation::reduce_scatter:
      return "reduce_scatter";
    case Operation::broadcast:
      return "broadcast";
    case Operation::barrier:
      return "barrier";
  }
  return "an unknown operation";
}

// Books `moved` bytes: first on the head, then on the item. True: the item is complete.
template <class Direction>
bool book(Direction& direction, std::size_t moved) {
  const std::size_t of_head = std::min(moved, sizeof(Call) - direction.head);
  direction.head += of_head;
  direction.done += moved - of_head;
  return direction.head == sizeof(Call) && direction.done == direction.items[direction.next].bytes;
}

// What is next to move: the rest of the head, and of the item.
template <class Direction>
int next_bytes(const Direction& direction, const Call& head, iovec (&parts)[2]) {
  int count = 0;
  if (direction.head < sizeof(Call)) {
    auto* const bytes = reinterpret_cast<std::byte*>(const_cast<Call*>(&head));
    parts[count++] = {bytes + direction.head, sizeof(Call) - direction.head};
  }
  const auto& item = direction.items[direction.next];
  if (direction.done < item.bytes) {
    parts[count++] = {const_cast<std::byte*>(item.data + direction.done),
                      std::min(turn, item.bytes - direction.done)};
  }
  return count;
}

}  // namespace

std::string Call::text() const {
  std::string text = name_of(operation);
  if (operation == Operation::barrier) return text;
  text += " of " + std::to_string(bytes) + " bytes";
  if (operation == Operation::broadcast) text += " from rank " + std::to_string(root);
  if (operation == Operation::all_reduce || operation == Operation::reduce_scatter) {
    text += " of " + std::string(ftrain::name_of(dtype));
    text += reduction == Reduction::max ? " (max)" : " (sum)";
  }
  return text;
}

void Exchange::begin(const Call& call) {
  call_ = call;
  left_ = 0;
  for (const int rank : active_) {
    Line& line = lines_[static_cast<std::size_t>(rank)];
    line.out.items.clear();
    line.in.items.clear();
    line.out.next = line.out.done = line.out.head = 0;
    line.in.next = line.in.done = line.in.head = 0;
    line.out.stuck = line.in.stuck = line.active = false;
  }
  active_.clear();
}

Exchange::Line& Exchange::open_line(int rank) {
  Line& line = lines_[static_cast<std::size_t>(rank)];
  if (!line.active) {
    line.active = true;
    active_.push_back(rank);
  }
  ++left_;
  return line;
}

void Exchange::send(int rank, const void* data, std::size_t bytes) {
  open_line(rank).out.items.push_back({static_cast<const std::byte*>(data), bytes});
}

void Exchange::receive(int rank, void* data, std::size_t bytes, std::function<void()> arrived) {
  open_line(rank).in.items.push_back({static_cast<std::byte*>(data), bytes, std::move(arrived)});
}

void Exchange::run() {
  while (left_ > 0) {
    bool moved = false;
    // What arrives may open lines: by number, not by iterator.
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const int rank = active_[i];
      Line& line = lines_[static_cast<std::size_t>(rank)];
      if (line.out.can_move()) moved |= move_out(rank, line);
      if (line.in.can_move()) moved |= move_in(rank, line);
    }
    if (left_ > 0 && !moved) sleep();
  }
}

bool Exchange::move_out(int rank, Line& line) {
  iovec parts[2];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<std::size_t>(next_bytes(line.out, call_, parts));
  std::size_t offered = 0;
  for (std::size_t i = 0; i < message.msg_iovlen; ++i) offered += parts[i].iov_len;
  ssize_t moved = 0;
  if (offered > 0) {
    moved = ::sendmsg(mesh_.tensors(rank).fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (moved < 0) {
      if (!is_later(errno)) mesh_.broken(rank, call_.text());
      line.out.stuck = errno != EINTR;
      return false;
    }
  }
  line.out.stuck = static_cast<std::size_t>(moved) < offered;
  if (book(line.out, static_cast<std::size_t>(moved))) {
    ++line.out.next;
    line.out.done = 0;
    --left_;
  }
  return true;
}

bool Exchange::move_in(int rank, Line& line) {
  iovec parts[2];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<std::size_t>(next_bytes(line.in, line.theirs, parts));
  std::size_t wanted = 0;
  for (std::size_t i = 0; i < message.msg_iovlen; ++i) wanted += parts[i].iov_len;
  ssize_t moved = 0;
  if (wanted > 0) {
    moved = ::recvmsg(mesh_.tensors(rank).fd(), &message, MSG_DONTWAIT);
    if (moved == 0 || (moved < 0 && !is_later(errno))) mesh_.broken(rank, call_.text());
    if (moved < 0) {
      line.in.stuck = errno != EINTR;
      return false;
    }
  }
  line.in.stuck = static_cast<std::size_t>(moved) < wanted;
  const bool had_head = line.in.head == sizeof(Call);
  const bool complete = book(line.in, static_cast<std::size_t>(moved));
  if (!had_head && line.in.head == sizeof(Call)) check(rank, line.theirs);
  if (complete) {
    // Kept: the call may move the items.
    const auto arrived = std::move(line.in.items[line.in.next].arrived);
    ++line.in.next;
    line.in.done = 0;
    --left_;
    if (arrived) arrived();
  }
  return true;
}

void Exchange::check(int rank, const Call& theirs) {
  if (theirs == call_) return;
  std::string what = mesh_.name_of(rank) + " called " + theirs.text();
  if (theirs.group != call_.group) what += " in another group of ranks";
  what += " where " + mesh_.place().text() + " called " + call_.text();
  if (theirs.number != call_.number) {
    what += " (collective " + std::to_string(theirs.number) + " of the one, " +
            std::to_string(call_.number) + " of the other)";
  }
  mesh_.fail(what + ": all ranks call the same collectives in the same order");
}

// In operations where a rank hears of a few others only, one that takes part in something else may
// wait for this one, unread.
void Exchange::look_for_strays() {
  for (int rank = 0; rank < mesh_.place().size; ++rank) {
    if (rank == mesh_.place().rank || lines_[static_cast<std::size_t>(rank)].in.head > 0) continue;
    Call theirs;
    const ssize_t got =
        ::recv(mesh_.tensors(rank).fd(), &theirs, sizeof theirs, MSG_DONTWAIT | MSG_PEEK);
    // Who is ahead, or in another group, is right to be there.
    if (got != sizeof theirs || theirs.group != call_.group || theirs.number > call_.number)
      continue;
    check(rank, theirs);
  }
}

void Exchange::sleep() {
  polled_.clear();
  polled_.push_back({mesh_.news().fd(), POLLIN, 0});
  for (const int rank : active_) {
    const Line& line = lines_[static_cast<std::size_t>(rank)];
    const int events = (line.out.waits() ? POLLOUT : 0) | (line.in.waits() ? POLLIN : 0);
    if (events != 0) {
      polled_.push_back({mesh_.tensors(rank).fd(), static_cast<short>(events), 0});
    }
  }
  if (::poll(polled_.data(), polled_.size(), longest_sleep) <= 0) return look_for_strays();
  std::size_t at = 1;
  for (const int rank : active_) {
    Line& line = lines_[static_cast<std::size_t>(rank)];
    if (!line.out.waits() && !line.in.waits()) continue;
    const int ready = polled_[at++].revents;
    // An error shows in the call that it breaks.
    if ((ready & ~POLLIN) != 0) line.out.stuck = false;
    if ((ready & ~POLLOUT) != 0) line.in.stuck = false;
  }
  // Tensors first: a rank that sent all of its part and ended is no failure for who has it all.
  if (polled_[0].revents != 0) mesh_.hear();
}

}  // namespace ftrain::tcp
