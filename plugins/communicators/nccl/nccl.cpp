// Ranks that are processes with a GPU each: tensors of the GPUs travel by NCCL, those of the host
// by a communicator that carries this one, which also brings the GPUs together.
#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/device/communicator.h"
#include "ftrain/plugin.h"
#include "plugins/communicators/nccl/link.h"

namespace {

using ftrain::CommunicationError;
using ftrain::DType;
using ftrain::RankPlace;
using ftrain::Reduction;
using ftrain::nccl::Link;

// The links of the whole and of its parts: abort() ends them all.
class Links {
 public:
  void add(const std::shared_ptr<Link>& link) {
    const std::lock_guard lock(mutex_);
    std::erase_if(links_, [](const auto& old) { return old.expired(); });
    links_.push_back(link);
    if (!reason_.empty()) link->abort(reason_);
  }
  void abort(const std::string& reason) {
    std::vector<std::shared_ptr<Link>> links;
    {
      const std::lock_guard lock(mutex_);
      if (reason_.empty()) reason_ = reason;
      for (const auto& link : links_) links.push_back(link.lock());
    }
    for (const auto& link : links) {
      if (link) link->abort(reason);
    }
  }

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<Link>> links_;
  std::string reason_;
};

class Nccl final : public ftrain::Communicator {
 public:
  Nccl() : links_(std::make_shared<Links>()) {}
  Nccl(std::unique_ptr<Communicator> carrier, std::shared_ptr<Links> links)
      : carrier_(std::move(carrier)), links_(std::move(links)) {}

  bool needs_carrier() const override { return true; }
  void carry_by(std::unique_ptr<Communicator> carrier) override { carrier_ = std::move(carrier); }

  void connect(const RankPlace& place) override {
    if (!carrier_) {
      throw CommunicationError(place.text() +
                               ": the nccl communicator needs another one for the host's memory");
    }
    carrier_->connect(place);
  }
  int rank() const override { return carrier_->rank(); }
  int size() const override { return carrier_->size(); }
  const RankPlace& place() const override { return carrier_->place(); }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    carrier_->all_reduce(data, count, dtype, reduction);
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    carrier_->all_gather(in, out, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    carrier_->reduce_scatter(in, out, count, dtype);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    carrier_->broadcast(data, bytes, root);
  }
  void barrier() override { carrier_->barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<Nccl>(carrier_->split(color, key), links_);
  }
  void abort(const std::string& reason) override {
    if (carrier_) carrier_->abort(reason);
    links_->abort(reason);
  }
  void working_on(const ftrain::Work& work) override { carrier_->working_on(work); }

  ftrain::DeviceCollectives* device_collectives() override {
    if (!link_) {
      const auto link = std::make_shared<Link>(carrier_->place());
      links_->add(link);  // first: a rank that waits for the others can be told that they failed
      link->join(*carrier_);
      link_ = link;
    }
    return link_.get();
  }

 private:
  // The link ends before what brought it together.
  std::unique_ptr<Communicator> carrier_;
  std::shared_ptr<Links> links_;
  std::shared_ptr<Link> link_;
};

}  // namespace

FTRAIN_PLUGIN(nccl, registry) {
  registry.add<ftrain::Communicator, Nccl>("nccl", "ranks as processes with a GPU each, by NCCL");
}
