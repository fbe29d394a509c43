// Ranks that are processes, over MPI's C interface.
//
// Sums are made here, of pieces that the ranks send each other, and not by MPI's own reductions:
// those that do not block take several times the processor's time on large tensors, and this way a
// sum is taken in rank order: the same bits on every rank, in every run, and with every
// communicator that does so.
//
// Each rank owns one part of the tensor. It receives the others' values of its part, piece by
// piece, and sends the sums round; pieces are small enough for the processor's cache.
#include <algorithm>
#include <cstring>
#include <memory>

#include "ftrain/device/communicator.h"
#include "ftrain/plugin.h"
#include "plugins/communicators/mpi/world.h"

namespace {

using ftrain::CommunicationError;
using ftrain::DType;
using ftrain::RankPlace;
using ftrain::Reduction;
using ftrain::mpi::World;

// Counts of MPI are ints, and nobody looks for an abort within a message.
constexpr std::size_t largest_message = std::size_t{4} << 20;
// Of a tensor that is summed.
constexpr std::int64_t piece_bytes = 256 << 10;
// Pieces on their way at a time, from and to each rank.
constexpr std::int64_t pieces_ahead = 4;
// Up to this size every rank receives all of the others' values: one round instead of two.
constexpr std::size_t small_bytes = 8 << 10;
// With more ranks than this, fewer messages are worth a second round.
constexpr int few_ranks = 4;

enum Tag { value_tag = 1, sum_tag = 2, gather_tag = 3 };

// out = a (+) b, where out may be one of them.
template <class T>
void combine(const T* a, const T* b, T* out, std::int64_t count, Reduction reduction) {
  if (reduction == Reduction::max) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) out[i] = std::max(a[i], b[i]);
  } else {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
  }
}

class Mpi final : public ftrain::Communicator {
 public:
  Mpi() = default;
  Mpi(std::shared_ptr<World> world, MPI_Comm ranks, int rank, int size)
      : world_(std::move(world)), ranks_(ranks), rank_(rank), size_(size), part_(true) {}
  ~Mpi() override {
    if (part_) world_->free(ranks_);
  }

  void connect(const RankPlace& place) override {
    world_ = std::make_shared<World>(place);
    ranks_ = world_->everyone();
    rank_ = place.rank;
    size_ = place.size;
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const RankPlace& place() const override { return world_->place(); }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    switch (dtype) {
      case DType::f32:
        return reduce(static_cast<float*>(data), count, reduction);
      case DType::f64:
        return reduce(static_cast<double*>(data), count, reduction);
      case DType::i64:
        return reduce(static_cast<std::int64_t*>(data), count, reduction);
      default:
        throw CommunicationError("all_reduce takes f32, f64 and i64");
    }
  }

  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    if (dtype == DType::f64) return scatter<double>(in, out, count);
    if (dtype != DType::f32) throw CommunicationError("reduce_scatter takes f32 and f64");
    scatter<float>(in, out, count);
  }

  void all_gather(const void* in, void* out, std::size_t bytes) override {
    world_->check_stopped();
    if (bytes == 0) return;
    char* const all = static_cast<char*>(out);
    const char* const mine = static_cast<const char*>(in);
    std::vector<MPI_Request> requests;
    {
      const World::Turn turn(*world_);
      for (int step = 1; step < size_; ++step) {
        const int from = (rank_ + size_ - step) % size_, to = (rank_ + step) % size_;
        for (std::size_t at = 0; at < bytes; at += largest_message) {
          const std::size_t length = std::min(largest_message, bytes - at);
          receive(all + static_cast<std::size_t>(from) * bytes + at, length, from, gather_tag,
                  requests);
          send(mine + at, length, to, gather_tag, requests);
        }
      }
    }
    std::memmove(all + static_cast<std::size_t>(rank_) * bytes, mine, bytes);
    world_->wait_all(requests, "all_gather");
  }

  void broadcast(void* data, std::size_t bytes, int root) override {
    world_->check_stopped();
    if (size_ == 1) return;
    for (std::size_t at = 0; at < bytes; at += largest_message) {
      const auto length = static_cast<int>(std::min(largest_message, bytes - at));
      finish("broadcast", [&](MPI_Request* request) {
        return MPI_Ibcast(static_cast<char*>(data) + at, length, MPI_BYTE, root, ranks_, request);
      });
    }
  }

  void barrier() override {
    finish("barrier", [&](MPI_Request* request) { return MPI_Ibarrier(ranks_, request); });
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    // MPI's split blocks: all ranks have come before it is called. Its colors are not negative.
    std::vector<int> colors(static_cast<std::size_t>(size_));
    all_gather(&color, colors.data(), sizeof(color));
    const auto first = std::find(colors.begin(), colors.end(), color) - colors.begin();
    const World::Turn turn(*world_);
    MPI_Comm part = MPI_COMM_NULL;
    world_->check(MPI_Comm_split(ranks_, static_cast<int>(first), key, &part), "split");
    int rank = 0, size = 0;
    MPI_Comm_rank(part, &rank);
    MPI_Comm_size(part, &size);
    return std::make_unique<Mpi>(world_, part, rank, size);
  }

  void abort(const std::string& reason) override { world_->abort(reason); }

 private:
  void send(const void* data, std::size_t bytes, int to, Tag tag,
            std::vector<MPI_Request>& requests) {
    if (bytes == 0) return;
    world_->check(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, tag, ranks_,
                            &requests.emplace_back()),
                  "MPI_Isend");
  }
  void receive(void* data, std::size_t bytes, int from, Tag tag,
               std::vector<MPI_Request>& requests) {
    if (bytes == 0) return;
    world_->check(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, tag, ranks_,
                            &requests.emplace_back()),
                  "MPI_Irecv");
  }
  // A collective of MPI that does not block, from its start to its end.
  template <class Start>
  void finish(const char* operation, Start start) {
    MPI_Request request = MPI_REQUEST_NULL;
    {
      const World::Turn turn(*world_);
      world_->check(start(&request), operation);
    }
    world_->wait(request, operation);
  }

  template <class T>
  void reduce(T* data, std::int64_t count, Reduction reduction) {
    world_->check_stopped();
    if (size_ == 1 || count == 0) return;
    if (size_ <= few_ranks && static_cast<std::size_t>(count) * sizeof(T) <= small_bytes) {
      reduce_at_once(data, count, reduction);
    } else {
      sum_parts(data, data + begin_of(rank_, count), data, count, reduction);
    }
  }

  template <class T>
  void scatter(const void* in, void* out, std::int64_t count) {
    world_->check_stopped();
    if (count == 0) return;
    if (size_ == 1) {
      std::memmove(out, in, static_cast<std::size_t>(count) * sizeof(T));
      return;
    }
    sum_parts<T>(static_cast<const T*>(in), static_cast<T*>(out), nullptr, count * size_,
                 Reduction::sum);
  }

  // Everyone's values to everyone, and each rank sums for itself.
  template <class T>
  void reduce_at_once(T* data, std::int64_t count, Reduction reduction) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    T* const received = scratch<T>(count * size_);
    std::vector<MPI_Request> requests;
    {
      const World::Turn turn(*world_);
      for (int step = 1; step < size_; ++step) {
        const int from = (rank_ + size_ - step) % size_, to = (rank_ + step) % size_;
        receive(received + from * count, bytes, from, value_tag, requests);
        send(data, bytes, to, value_tag, requests);
      }
    }
    world_->wait_all(requests, "all_reduce");
    in_rank_order(data, received, count, data, count, reduction);
  }

  // The part of `total` elements that a rank owns begins here.
  std::int64_t begin_of(int rank, std::int64_t total) const {
    return total / size_ * rank + std::min<std::int64_t>(rank, total % size_);
  }

  // Sums everyone's values of my part into `sum`; with `shared`, where all parts lie behind each
  // other as in `values`, everyone gets all sums. `sum` may lie in `values`.
  template <class T>
  void sum_parts(const T* values, T* sum, T* shared, std::int64_t total, Reduction reduction) {
    const char* const operation = shared != nullptr ? "all_reduce" : "reduce_scatter";
    const std::int64_t largest = (total + size_ - 1) / size_;
    const std::int64_t piece =
        std::min(largest, piece_bytes / static_cast<std::int64_t>(sizeof(T)));
    const std::int64_t pieces = (largest + piece - 1) / piece;
    const auto start = [&](int rank, std::int64_t k) { return begin_of(rank, total) + k * piece; };
    const auto length = [&](int rank, std::int64_t k) {
      return std::clamp<std::int64_t>(begin_of(rank + 1, total) - start(rank, k), 0, piece);
    };
    const auto bytes = [&](int rank, std::int64_t k) {
      return static_cast<std::size_t>(length(rank, k)) * sizeof(T);
    };
    const std::int64_t slots = std::min(pieces, pieces_ahead);
    T* const received = scratch<T>(slots * size_ * piece);
    struct Slot {
      std::vector<MPI_Request> received, sent, sums_sent;
    };
    std::vector<Slot> ahead(static_cast<std::size_t>(slots));
    std::vector<MPI_Request> sums_received;
    const auto slot_of = [&](std::int64_t k) -> Slot& {
      return ahead[static_cast<std::size_t>(k % slots)];
    };
    const auto values_of = [&](std::int64_t k) { return received + k % slots * size_ * piece; };

    const auto exchange_values = [&](std::int64_t k) {
      const World::Turn turn(*world_);
      for (int step = 1; step < size_; ++step) {
        const int from = (rank_ + size_ - step) % size_, to = (rank_ + step) % size_;
        receive(values_of(k) + from * piece, bytes(rank_, k), from, value_tag, slot_of(k).received);
        send(values + start(to, k), bytes(to, k), to, value_tag, slot_of(k).sent);
      }
    };
    const auto exchange_sums = [&](std::int64_t k) {
      const World::Turn turn(*world_);
      for (int step = 1; step < size_; ++step) {
        const int from = (rank_ + size_ - step) % size_, to = (rank_ + step) % size_;
        send(sum + k * piece, bytes(rank_, k), to, sum_tag, slot_of(k).sums_sent);
        receive(shared + start(from, k), bytes(from, k), from, sum_tag, sums_received);
      }
    };
    // Nobody waits for what a rank does later than the step it is at itself: the rank that is
    // furthest behind can always go on.
    for (std::int64_t k = 0; k < slots; ++k) exchange_values(k);
    for (std::int64_t k = 0; k < pieces; ++k) {
      Slot& slot = slot_of(k);
      world_->wait_all(slot.received, operation);
      in_rank_order(values + start(rank_, k), values_of(k), piece, sum + k * piece,
                    length(rank_, k), reduction);
      // Their sums come to where my values lie.
      world_->wait_all(slot.sent, operation);
      world_->wait_all(slot.sums_sent, operation);
      if (shared != nullptr) exchange_sums(k);
      if (k + slots < pieces) exchange_values(k + slots);
    }
    for (Slot& slot : ahead) world_->wait_all(slot.sums_sent, operation);
    world_->wait_all(sums_received, operation);
  }

  // out = values of rank 0 (+) those of rank 1 ...: mine, and the others', which lie `stride` apart
  // in `received` and are overwritten. `out` may be `mine`.
  template <class T>
  void in_rank_order(const T* mine, T* received, std::int64_t stride, T* out, std::int64_t count,
                     Reduction reduction) {
    const auto of = [&](int rank) { return rank == rank_ ? mine : received + rank * stride; };
    const T* sum = of(0);
    for (int rank = 1; rank < size_; ++rank) {
      T* const next = rank_ == 0 || rank == size_ - 1 ? out : received;
      combine(sum, of(rank), next, count, reduction);
      sum = next;
    }
  }

  template <class T>
  T* scratch(std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (scratch_.size() < bytes) scratch_.resize(bytes);
    return reinterpret_cast<T*>(scratch_.data());
  }

  std::shared_ptr<World> world_;
  MPI_Comm ranks_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  bool part_ = false;
  std::vector<std::byte> scratch_;
};

}  // namespace

FTRAIN_PLUGIN(mpi, registry) {
  registry.add<ftrain::Communicator, Mpi>("mpi", "ranks as processes that mpirun or srun starts");
}
