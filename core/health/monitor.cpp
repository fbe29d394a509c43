#include "core/health/monitor.h"

#include <exception>
#include <utility>

#include "core/health/failure_detector.h"
#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// Runs a collective between begin() and end().
template <class Collective>
auto watched(Watcher& watcher, const char* operation, std::int64_t bytes, Collective collective) {
  watcher.board().begin(operation, bytes);
  try {
    if constexpr (std::is_void_v<decltype(collective())>) {
      collective();
      watcher.board().end();
    } else {
      auto result = collective();
      watcher.board().end();
      return result;
    }
  } catch (const CommunicationError& error) {
    watcher.board().failed(error);
  } catch (...) {
    watcher.board().leave();
    throw;
  }
}

std::int64_t bytes_of(std::int64_t count, DType dtype) {
  return count * static_cast<std::int64_t>(size_of(dtype));
}

void all_reduce_of(Watcher& watcher, Communicator& inner, void* data, std::int64_t count,
                   DType dtype, Reduction reduction) {
  watched(watcher, "all_reduce", bytes_of(count, dtype),
          [&] { inner.all_reduce(data, count, dtype, reduction); });
}

void all_gather_of(Watcher& watcher, Communicator& inner, const void* in, void* out,
                   std::size_t bytes) {
  watched(watcher, "all_gather", static_cast<std::int64_t>(bytes) * inner.size(),
          [&] { inner.all_gather(in, out, bytes); });
}

void reduce_scatter_of(Watcher& watcher, Communicator& inner, const void* in, void* out,
                       std::int64_t count, DType dtype) {
  watched(watcher, "reduce_scatter", bytes_of(count, dtype) * inner.size(),
          [&] { inner.reduce_scatter(in, out, count, dtype); });
}

void broadcast_of(Watcher& watcher, Communicator& inner, void* data, std::size_t bytes, int root) {
  watched(watcher, "broadcast", static_cast<std::int64_t>(bytes),
          [&] { inner.broadcast(data, bytes, root); });
}

std::unique_ptr<Communicator> split_of(Watcher& watcher, Communicator& inner, int color, int key) {
  return watched(watcher, "split", 0, [&] { return inner.split(color, key); });
}

}  // namespace

// What is enqueued goes straight on: no rank waits in it. An error is told as any other.
class WatchedCommunicator::OnDevice final : public DeviceCollectives {
 public:
  OnDevice(Watcher& watcher, DeviceCollectives& inner) : watcher_(watcher), inner_(inner) {}

  // nullptr when the inner communicator has none. Collective.
  static DeviceCollectives* of(Watcher& watcher, Communicator& inner,
                               std::unique_ptr<OnDevice>& made) {
    if (made) return made.get();
    DeviceCollectives* const found =
        watched(watcher, "meeting of the devices", 0, [&] { return inner.device_collectives(); });
    if (found != nullptr) made = std::make_unique<OnDevice>(watcher, *found);
    return made.get();
  }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                  void* stream) override {
    told([&] { inner_.all_reduce(data, count, dtype, reduction, stream); });
  }
  void all_gather(const void* in, void* out, std::size_t bytes, void* stream) override {
    told([&] { inner_.all_gather(in, out, bytes, stream); });
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      void* stream) override {
    told([&] { inner_.reduce_scatter(in, out, count, dtype, stream); });
  }
  void broadcast(void* data, std::size_t bytes, int root, void* stream) override {
    told([&] { inner_.broadcast(data, bytes, root, stream); });
  }
  void begin_group() override {
    told([&] { inner_.begin_group(); });
  }
  void end_group() override {
    told([&] { inner_.end_group(); });
  }
  void wait(const std::function<void()>& wait) override {
    watched(watcher_, "collectives between the devices", 0, [&] { inner_.wait(wait); });
  }

 private:
  template <class F>
  void told(F enqueue) {
    try {
      enqueue();
    } catch (const CommunicationError& error) {
      watcher_.board().failed(error);
    }
  }

  Watcher& watcher_;
  DeviceCollectives& inner_;
};

// The ranks of one color.
class WatchedCommunicator::Part final : public Communicator {
 public:
  Part(std::shared_ptr<Watcher> watcher, std::unique_ptr<Communicator> inner)
      : watcher_(std::move(watcher)), inner_(std::move(inner)) {}

  void connect(const RankPlace&) override {
    throw CommunicationError("a part of the ranks is connected from its beginning");
  }
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const RankPlace& place() const override { return inner_->place(); }
  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    all_reduce_of(*watcher_, *inner_, data, count, dtype, reduction);
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    all_gather_of(*watcher_, *inner_, in, out, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    reduce_scatter_of(*watcher_, *inner_, in, out, count, dtype);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    broadcast_of(*watcher_, *inner_, data, bytes, root);
  }
  void barrier() override {
    watched(*watcher_, "barrier", 0, [&] { inner_->barrier(); });
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<Part>(watcher_, split_of(*watcher_, *inner_, color, key));
  }
  void abort(const std::string& reason) override { watcher_->abort(reason); }
  DeviceCollectives* device_collectives() override {
    return OnDevice::of(*watcher_, *inner_, on_device_);
  }
  void working_on(const Work& work) override { watcher_->board().working_on(work); }

 private:
  std::shared_ptr<Watcher> watcher_;  // outlives `inner_`: it owns the whole
  std::unique_ptr<Communicator> inner_;
  std::unique_ptr<OnDevice> on_device_;
};

WatchedCommunicator::WatchedCommunicator(std::unique_ptr<Communicator> inner,
                                         const WatchOptions& options)
    : watcher_(std::make_shared<Watcher>(std::move(inner), options)),
      exceptions_(std::uncaught_exceptions()) {}

WatchedCommunicator::~WatchedCommunicator() {
  watcher_->close(std::uncaught_exceptions() > exceptions_);
}

void WatchedCommunicator::connect(const RankPlace&) {
  throw CommunicationError("a watched communicator is connected from its beginning");
}

int WatchedCommunicator::rank() const {
  return watcher_->inner().rank();
}

int WatchedCommunicator::size() const {
  return watcher_->inner().size();
}

const RankPlace& WatchedCommunicator::place() const {
  return watcher_->inner().place();
}

void WatchedCommunicator::all_reduce(void* data, std::int64_t count, DType dtype,
                                     Reduction reduction) {
  all_reduce_of(*watcher_, watcher_->inner(), data, count, dtype, reduction);
}

void WatchedCommunicator::all_gather(const void* in, void* out, std::size_t bytes) {
  all_gather_of(*watcher_, watcher_->inner(), in, out, bytes);
}

void WatchedCommunicator::reduce_scatter(const void* in, void* out, std::int64_t count,
                                         DType dtype) {
  reduce_scatter_of(*watcher_, watcher_->inner(), in, out, count, dtype);
}

void WatchedCommunicator::broadcast(void* data, std::size_t bytes, int root) {
  broadcast_of(*watcher_, watcher_->inner(), data, bytes, root);
}

void WatchedCommunicator::barrier() {
  watched(*watcher_, "barrier", 0, [&] { watcher_->inner().barrier(); });
}

std::unique_ptr<Communicator> WatchedCommunicator::split(int color, int key) {
  return std::make_unique<Part>(watcher_, split_of(*watcher_, watcher_->inner(), color, key));
}

void WatchedCommunicator::abort(const std::string& reason) {
  watcher_->abort(reason);
}

DeviceCollectives* WatchedCommunicator::device_collectives() {
  return OnDevice::of(*watcher_, watcher_->inner(), on_device_);
}

void WatchedCommunicator::working_on(const Work& work) {
  watcher_->board().working_on(work);
}

}  // namespace ftrain
