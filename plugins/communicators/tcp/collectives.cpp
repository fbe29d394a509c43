#include "plugins/communicators/tcp/collectives.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>

#include "ftrain/base/error.h"
#include "plugins/communicators/tcp/reduce.h"

namespace ftrain::tcp {
namespace {

// Up to here (all ranks' bytes together) each rank sums everything: one way instead of two.
constexpr std::size_t little = std::size_t(64) << 10;
// Up to here a broadcast goes down a tree.
constexpr std::size_t short_broadcast = std::size_t(64) << 10;
constexpr std::size_t broadcast_piece = std::size_t(256) << 10;
// Pieces that are on their way while one is summed, and what they may take together.
constexpr std::int64_t pieces_ahead = 3;
constexpr std::size_t largest_piece = std::size_t(256) << 10, smallest_piece = std::size_t(4) << 10;
constexpr std::size_t scratch_limit = std::size_t(32) << 20;

void reduce(void* out, std::span<const void* const> parts, std::int64_t count, DType dtype,
            Reduction reduction) {
  switch (dtype) {
    case DType::f64:
      return reduce_parts(static_cast<double*>(out), parts, count, reduction);
    case DType::i64:
      return reduce_parts(static_cast<std::int64_t*>(out), parts, count, reduction);
    default:
      return reduce_parts(static_cast<float*>(out), parts, count, reduction);
  }
}

}  // namespace

// The pieces of a sum in parts. A piece goes around in steps: it is received from everyone, summed,
// and the sum sent to everyone; a summed piece makes room for one that is `pieces_ahead` later. All
// ranks give transfers in the same order, so what is sent first is awaited first.
class Group::Pieces {
 public:
  Pieces(Group& group, const Parts& parts) : group_(group), parts_(parts) {
    const auto ranks = static_cast<std::size_t>(group.size());
    const std::size_t room = scratch_limit / (ranks * pieces_ahead);
    element_ = size_of(parts.dtype);
    const std::size_t bytes = std::clamp(room, smallest_piece, largest_piece);
    piece_ = static_cast<std::int64_t>(bytes / element_);
    std::int64_t longest = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      longest = std::max(longest, parts.begin[r + 1] - parts.begin[r]);
    }
    count_ = std::max<std::int64_t>(1, (longest + piece_ - 1) / piece_);
    const std::int64_t held = std::min(count_, pieces_ahead);
    const std::size_t slot = static_cast<std::size_t>(std::min(piece_, longest)) * element_;
    slot_bytes_ = slot;
    group.scratch_.resize(slot * static_cast<std::size_t>(held) * ranks);
    arrived_.assign(static_cast<std::size_t>(held), 0);
    for (std::int64_t p = 0; p < held; ++p) exchange(p);
  }

 private:
  struct Range {
    std::size_t at, bytes;  // from the begin of all parts
  };
  Range range(int part, std::int64_t piece) const {
    const auto r = static_cast<std::size_t>(part);
    const std::int64_t from = std::min(parts_.begin[r] + piece * piece_, parts_.begin[r + 1]);
    const std::int64_t to = std::min(from + piece_, parts_.begin[r + 1]);
    return {static_cast<std::size_t>(from) * element_,
            static_cast<std::size_t>(to - from) * element_};
  }
  std::byte* slot(int rank, std::int64_t piece) const {
    const auto held = static_cast<std::int64_t>(arrived_.size());
    return group_.scratch_.data() +
           static_cast<std::size_t>(rank * held + piece % held) * slot_bytes_;
  }

  // Sends everyone its piece, and receives what everyone has of this rank's.
  void exchange(std::int64_t piece) {
    const std::size_t mine = range(group_.rank(), piece).bytes;
    group_.for_others([&](int other) {
      const Range theirs = range(other, piece);
      group_.send(other, parts_.in + theirs.at, theirs.bytes);
      group_.receive(other, slot(other, piece), mine, [this, piece] { arrived(piece); });
    });
  }

  void arrived(std::int64_t piece) {
    auto& count = arrived_[static_cast<std::size_t>(piece) % arrived_.size()];
    if (++count < group_.size() - 1) return;
    count = 0;
    const Range mine = range(group_.rank(), piece);
    const std::size_t first = range(group_.rank(), 0).at;
    std::byte* const sum = parts_.out + (mine.at - first);
    std::vector<const void*> parts;
    for (int r = 0; r < group_.size(); ++r) {
      parts.push_back(r == group_.rank() ? parts_.in + mine.at : slot(r, piece));
    }
    reduce(sum, parts, static_cast<std::int64_t>(mine.bytes / element_), parts_.dtype,
           parts_.reduction);
    if (parts_.all != nullptr) {
      group_.for_others([&](int other) {
        const Range theirs = range(other, piece);
        group_.send(other, sum, mine.bytes);
        group_.receive(other, parts_.all + theirs.at, theirs.bytes);
      });
    }
    const std::int64_t later = piece + static_cast<std::int64_t>(arrived_.size());
    if (later < count_) exchange(later);
  }

  Group& group_;
  const Parts& parts_;
  std::size_t element_, slot_bytes_;
  std::int64_t piece_, count_;  // elements of a piece, pieces
  std::vector<int> arrived_;    // from how many ranks, by slot
};

Group::Group(std::shared_ptr<Mesh> mesh)
    : Group(
          mesh,
          [&] {
            std::vector<int> all(static_cast<std::size_t>(mesh->place().size));
            std::iota(all.begin(), all.end(), 0);
            return all;
          }(),
          mesh->place().rank, 1) {}

Group::Group(std::shared_ptr<Mesh> mesh, std::vector<int> members, int rank, std::uint64_t id)
    : mesh_(std::move(mesh)),
      members_(std::move(members)),
      rank_(rank),
      id_(id),
      exchange_(*mesh_) {}

std::unique_lock<std::mutex> Group::begin(Call call) {
  std::unique_lock lock(mesh_->in_collective());
  mesh_->throw_if_failed();
  call.group = id_;
  call.number = ++number_;
  exchange_.begin(call);
  return lock;
}

void Group::send(int to, const void* data, std::size_t bytes) {
  exchange_.send(members_[static_cast<std::size_t>(to)], data, bytes);
}

void Group::receive(int from, void* data, std::size_t bytes, std::function<void()> arrived) {
  exchange_.receive(members_[static_cast<std::size_t>(from)], data, bytes, std::move(arrived));
}

void Group::all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) {
  if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::i64) {
    throw CommunicationError("all_reduce takes f32, f64 and i64");
  }
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
  const auto lock = begin(
      {.bytes = bytes, .operation = Operation::all_reduce, .dtype = dtype, .reduction = reduction});
  if (size() == 1) return;
  if (bytes * static_cast<std::size_t>(size()) <= little) {
    return everyone_sums(data, count, dtype, reduction);
  }
  Parts parts{static_cast<const std::byte*>(data),
              nullptr,
              static_cast<std::byte*>(data),
              count,
              dtype,
              reduction,
              {}};
  for (int r = 0; r <= size(); ++r) {
    // The first parts take one more where it does not divide.
    parts.begin.push_back(count / size() * r + std::min<std::int64_t>(r, count % size()));
  }
  parts.out =
      static_cast<std::byte*>(data) +
      static_cast<std::size_t>(parts.begin[static_cast<std::size_t>(rank_)]) * size_of(dtype);
  Pieces pieces(*this, parts);
  exchange_.run();
}

void Group::everyone_sums(void* data, std::int64_t count, DType dtype, Reduction reduction) {
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
  scratch_.resize(bytes * static_cast<std::size_t>(size()));
  std::vector<const void*> parts;
  for (int r = 0; r < size(); ++r) {
    parts.push_back(scratch_.data() + static_cast<std::size_t>(r) * bytes);
  }
  parts[static_cast<std::size_t>(rank_)] = data;
  for_others([&](int other) {
    send(other, data, bytes);
    receive(other, scratch_.data() + static_cast<std::size_t>(other) * bytes, bytes);
  });
  exchange_.run();
  reduce(data, parts, count, dtype, reduction);
}

void Group::all_gather(const void* in, void* out, std::size_t bytes) {
  const auto lock = begin({.bytes = bytes, .operation = Operation::all_gather});
  const auto place = [&](int r) {
    return static_cast<std::byte*>(out) + static_cast<std::size_t>(r) * bytes;
  };
  for_others([&](int other) {
    send(other, in, bytes);
    receive(other, place(other), bytes);
  });
  if (bytes > 0) std::memmove(place(rank_), in, bytes);
  exchange_.run();
}

void Group::reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) {
  if (dtype != DType::f32 && dtype != DType::f64) {
    throw CommunicationError("reduce_scatter takes f32 and f64");
  }
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
  const auto lock = begin({.bytes = bytes, .operation = Operation::reduce_scatter, .dtype = dtype});
  if (size() == 1) {
    if (bytes > 0) std::memmove(out, in, bytes);
    return;
  }
  Parts parts{static_cast<const std::byte*>(in),
              static_cast<std::byte*>(out),
              nullptr,
              count,
              dtype,
              Reduction::sum,
              {}};
  for (int r = 0; r <= size(); ++r) parts.begin.push_back(count * r);
  Pieces pieces(*this, parts);
  exchange_.run();
}

void Group::broadcast(void* data, std::size_t bytes, int root) {
  if (root < 0 || root >= size()) {
    throw CommunicationError("broadcast from rank " + std::to_string(root) + " of " +
                             std::to_string(size()));
  }
  const auto lock = begin({.bytes = bytes, .root = root, .operation = Operation::broadcast});
  if (bytes <= short_broadcast) return pass_down_tree(data, bytes, root);
  pass_along(data, bytes, root);
}

// Ranks are counted from the root: 0 sends to 1, 2, 4, ..; 1 to 3, 5, 9, ..; 2 to 6, 10, ..
void Group::pass_down_tree(void* data, std::size_t bytes, int root) {
  const int me = (rank_ - root + size()) % size();
  int distance = 1;
  while (distance <= me) distance *= 2;
  if (me > 0) {
    receive((me - distance / 2 + root) % size(), data, bytes);
    exchange_.run();
  }
  for (; me + distance < size(); distance *= 2) {
    send((me + distance + root) % size(), data, bytes);
  }
  exchange_.run();
}

void Group::pass_along(void* data, std::size_t bytes, int root) {
  const int me = (rank_ - root + size()) % size();
  const bool first = me == 0, last = me == size() - 1;
  const int before = (rank_ + size() - 1) % size(), behind = (rank_ + 1) % size();
  for (std::size_t at = 0; at < bytes; at += broadcast_piece) {
    std::byte* const piece = static_cast<std::byte*>(data) + at;
    const std::size_t length = std::min(broadcast_piece, bytes - at);
    if (!first) {
      receive(before, piece, length, [this, piece, length, behind, last] {
        if (!last) send(behind, piece, length);
      });
    } else if (!last) {
      send(behind, piece, length);
    }
  }
  exchange_.run();
}

// After round k everyone knows of 2^k ranks.
void Group::barrier() {
  const auto lock = begin({.operation = Operation::barrier});
  for (int distance = 1; distance < size(); distance *= 2) {
    send((rank_ + distance) % size(), nullptr, 0);
    receive((rank_ + size() - distance) % size(), nullptr, 0);
    exchange_.run();
  }
}

std::unique_ptr<Group> Group::split(int color, int key) {
  struct Choice {
    int color, key;
  };
  const Choice mine{color, key};
  std::vector<Choice> all(members_.size());
  all_gather(&mine, all.data(), sizeof mine);
  std::vector<int> chosen;
  for (int r = 0; r < size(); ++r) {
    if (all[static_cast<std::size_t>(r)].color == color) chosen.push_back(r);
  }
  std::stable_sort(chosen.begin(), chosen.end(), [&](int a, int b) {
    return all[static_cast<std::size_t>(a)].key < all[static_cast<std::size_t>(b)].key;
  });
  const auto me = std::find(chosen.begin(), chosen.end(), rank_) - chosen.begin();
  for (int& r : chosen) r = members_[static_cast<std::size_t>(r)];
  // The same on all of its ranks, and another one than that of groups with some of the same ranks.
  std::uint64_t id = id_;
  for (const std::uint64_t part : {number_, static_cast<std::uint64_t>(color)}) {
    id = (id ^ part) * 0x100000001b3u + 0x9e3779b97f4a7c15u;
  }
  return std::unique_ptr<Group>(new Group(mesh_, std::move(chosen), static_cast<int>(me), id));
}

}  // namespace ftrain::tcp
