// Ranks that are processes, connected by plain TCP: clusters and containers without MPI.
//
// Rank 0 waits at the address and port of its place; which ports the others listen at, ranks tell
// each other there.
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "ftrain/device/communicator.h"
#include "ftrain/plugin.h"
#include "plugins/communicators/tcp/collectives.h"

namespace {

using ftrain::CommunicationError;
using ftrain::DType;
using ftrain::RankPlace;
using ftrain::Reduction;
using ftrain::tcp::Group;
using ftrain::tcp::Mesh;

// A cluster may take its time to start the last rank.
constexpr auto start_patience = std::chrono::seconds(300);

class Tcp final : public ftrain::Communicator {
 public:
  Tcp() = default;
  Tcp(std::unique_ptr<Group> group, RankPlace place)
      : group_(std::move(group)), place_(std::move(place)) {}

  void connect(const RankPlace& place) override {
    place_ = place;
    if (place.size > 1 && (place.address.empty() || place.port <= 0)) {
      throw CommunicationError(
          place.text() +
          ": the tcp communicator needs the address and port where rank 0 waits for the others: "
          "set MASTER_ADDR and MASTER_PORT");
    }
    const auto deadline = ftrain::tcp::Clock::now() + start_patience;
    group_ = std::make_unique<Group>(std::make_shared<Mesh>(place, deadline));
    group_->barrier();
  }
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  const RankPlace& place() const override { return place_; }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    group_->all_reduce(data, count, dtype, reduction);
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    group_->all_gather(in, out, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    group_->reduce_scatter(in, out, count, dtype);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    group_->broadcast(data, bytes, root);
  }
  void barrier() override { group_->barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<Tcp>(group_->split(color, key), place_);
  }
  void abort(const std::string& reason) override {
    if (group_ != nullptr) group_->abort(reason);
  }

 private:
  std::unique_ptr<Group> group_;
  RankPlace place_;
};

}  // namespace

FTRAIN_PLUGIN(tcp, registry) {
  registry.add<ftrain::Communicator, Tcp>("tcp", "ranks as processes that meet at an address");
}
