// Ranks that are threads of one process: tests and small jobs need no launcher.
//
// Every collective is: post my buffer, meet, read the others' buffers in rank order, meet again.
// The second meeting keeps a buffer in place until everyone has read it.
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>

#include "ftrain/device/communicator.h"
#include "ftrain/plugin.h"

namespace {

using ftrain::CommunicationError;
using ftrain::DType;
using ftrain::RankPlace;
using ftrain::Reduction;

// What the ranks of one group share.
class Group {
 public:
  explicit Group(int size) : posted(static_cast<std::size_t>(size)), size_(size) {}

  void meet(int rank) {
    std::unique_lock lock(mutex_);
    check(rank);
    const std::uint64_t generation = generation_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++generation_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return generation_ != generation || !reason_.empty(); });
    if (generation_ == generation) check(rank);
  }
  // Stops the parts of the group too: its ranks may wait in one of them.
  void abort(const std::string& reason) {
    std::vector<std::weak_ptr<Group>> parts;
    {
      const std::lock_guard lock(mutex_);
      if (reason_.empty()) reason_ = reason;
      changed_.notify_all();
      parts = parts_;
    }
    for (const std::weak_ptr<Group>& part : parts) {
      if (const auto alive = part.lock()) alive->abort(reason);
    }
  }
  std::shared_ptr<Group> make_part(int size) {
    auto part = std::make_shared<Group>(size);
    const std::lock_guard lock(mutex_);
    std::erase_if(parts_, [](const auto& old) { return old.expired(); });
    parts_.push_back(part);
    part->reason_ = reason_;
    return part;
  }

  std::vector<const void*> posted;
  // Sub-groups by color, made by the first rank that asks for one in a split.
  std::map<int, std::shared_ptr<Group>> children;
  std::mutex children_mutex;

 private:
  void check(int rank) const {
    if (!reason_.empty()) {
      throw CommunicationError("rank " + std::to_string(rank) +
                               ": stopped because another rank failed: " + reason_);
    }
  }
  int size_, arrived_ = 0;
  std::uint64_t generation_ = 0;
  std::string reason_;
  std::vector<std::weak_ptr<Group>> parts_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

// Groups that are gathering, by the job's name.
std::shared_ptr<Group> join(const std::string& job, int size) {
  struct Gathering {
    std::shared_ptr<Group> group;
    int joined = 0;
  };
  static std::mutex mutex;
  static std::map<std::string, Gathering> gathering;
  const std::lock_guard lock(mutex);
  Gathering& entry = gathering[job];
  if (entry.group == nullptr) entry.group = std::make_shared<Group>(size);
  const std::shared_ptr<Group> group = entry.group;
  if (++entry.joined == size) gathering.erase(job);
  return group;
}

// Of no bytes there may be no address either.
void copy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

class Local final : public ftrain::Communicator {
 public:
  Local() = default;
  Local(std::shared_ptr<Group> group, int rank, int size, RankPlace place)
      : group_(std::move(group)), rank_(rank), size_(size), place_(std::move(place)) {}

  void connect(const RankPlace& place) override {
    place_ = place;
    rank_ = place.rank;
    size_ = place.size;
    group_ = join(place.job, size_);
    group_->meet(rank_);
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const RankPlace& place() const override { return place_; }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    switch (dtype) {
      case DType::f32:
        return reduce<float>(data, count, reduction);
      case DType::f64:
        return reduce<double>(data, count, reduction);
      case DType::i64:
        return reduce<std::int64_t>(data, count, reduction);
      default:
        throw CommunicationError("all_reduce takes f32, f64 and i64");
    }
  }

  void all_gather(const void* in, void* out, std::size_t bytes) override {
    exchange(in, [&] {
      for (std::size_t r = 0; r < group_->posted.size(); ++r) {
        copy(static_cast<char*>(out) + r * bytes, group_->posted[r], bytes);
      }
    });
  }

  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    if (dtype == DType::f64) return scatter<double>(in, out, count);
    if (dtype != DType::f32) throw CommunicationError("reduce_scatter takes f32 and f64");
    scatter<float>(in, out, count);
  }

  void broadcast(void* data, std::size_t bytes, int root) override {
    exchange(data, [&] {
      if (rank_ != root) {
        copy(data, group_->posted[static_cast<std::size_t>(root)], bytes);
      }
    });
  }

  void barrier() override { group_->meet(rank_); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    const int mine[2] = {color, key};
    std::vector<int> all(static_cast<std::size_t>(size_) * 2);
    all_gather(mine, all.data(), sizeof(mine));
    int rank = 0, size = 0;
    for (int r = 0; r < size_; ++r) {
      const int* const other = &all[static_cast<std::size_t>(r) * 2];
      if (other[0] != color) continue;
      ++size;
      if (other[1] < key || (other[1] == key && r < rank_)) ++rank;
    }
    std::shared_ptr<Group> child;
    {
      const std::lock_guard lock(group_->children_mutex);
      auto& slot = group_->children[color];
      if (slot == nullptr) slot = group_->make_part(size);
      child = slot;
    }
    barrier();
    if (rank_ == 0) group_->children.clear();
    barrier();
    return std::make_unique<Local>(std::move(child), rank, size, place_);
  }

  void abort(const std::string& reason) override { group_->abort(reason); }

 private:
  template <class Read>
  void exchange(const void* mine, Read read) {
    group_->posted[static_cast<std::size_t>(rank_)] = mine;
    group_->meet(rank_);
    read();
    group_->meet(rank_);
  }

  template <class T>
  void reduce(void* data, std::int64_t count, Reduction reduction) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    sum_.resize(bytes);
    T* const sum = reinterpret_cast<T*>(sum_.data());
    exchange(data, [&] {
      copy(sum, group_->posted[0], bytes);
      for (std::size_t r = 1; r < group_->posted.size(); ++r) {
        const T* const other = static_cast<const T*>(group_->posted[r]);
        for (std::int64_t i = 0; i < count; ++i) {
          sum[i] = reduction == Reduction::max ? std::max(sum[i], other[i]) : sum[i] + other[i];
        }
      }
    });
    copy(data, sum, bytes);
  }

  template <class T>
  void scatter(const void* in, void* out, std::int64_t count) {
    exchange(in, [&] {
      T* const sum = static_cast<T*>(out);
      for (std::size_t r = 0; r < group_->posted.size(); ++r) {
        const T* const part = static_cast<const T*>(group_->posted[r]) + rank_ * count;
        for (std::int64_t i = 0; i < count; ++i) sum[i] = (r == 0 ? T(0) : sum[i]) + part[i];
      }
    });
  }

  std::shared_ptr<Group> group_;
  int rank_ = 0, size_ = 1;
  RankPlace place_;
  std::vector<std::byte> sum_;
};

}  // namespace

FTRAIN_PLUGIN(local, registry) {
  registry.add<ftrain::Communicator, Local>("local", "ranks as threads of one process");
}
