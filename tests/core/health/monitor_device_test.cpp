// Watched ranks whose devices exchange by themselves: the watcher sees their waits.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/health/monitor.h"
#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// Takes everything and does nothing.
class Enqueued final : public DeviceCollectives {
 public:
  void all_reduce(void*, std::int64_t, DType, Reduction, void*) override { note("sum"); }
  void all_gather(const void*, void*, std::size_t, void*) override { note("gather"); }
  void reduce_scatter(const void*, void*, std::int64_t, DType, void*) override { note("scatter"); }
  void broadcast(void*, std::size_t, int, void*) override { note("broadcast"); }
  void begin_group() override { note("{"); }
  void end_group() override { note("}"); }
  void wait(const std::function<void()>& wait) override {
    wait();
    note("waited");
    if (aborted) throw CommunicationError("what was enqueued was aborted");
  }

  std::string text;
  std::string failure;  // of what is enqueued
  std::atomic<bool> aborted = false;

 private:
  void note(const char* what) {
    text += std::string(what) + " ";
    if (!failure.empty()) throw CommunicationError(failure);
  }
};

// The communicator `local`, with devices.
class WithDevices final : public Communicator {
 public:
  explicit WithDevices(std::unique_ptr<Communicator> inner, std::shared_ptr<Enqueued> on_device)
      : inner_(std::move(inner)), on_device_(std::move(on_device)) {}
  void connect(const RankPlace& place) override { inner_->connect(place); }
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const RankPlace& place() const override { return inner_->place(); }
  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    inner_->all_reduce(data, count, dtype, reduction);
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    inner_->all_gather(in, out, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    inner_->reduce_scatter(in, out, count, dtype);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    inner_->broadcast(data, bytes, root);
  }
  void barrier() override { inner_->barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<WithDevices>(inner_->split(color, key), on_device_);
  }
  void abort(const std::string& reason) override {
    inner_->abort(reason);
    on_device_->aborted = true;
  }
  DeviceCollectives* device_collectives() override { return on_device_.get(); }

 private:
  std::unique_ptr<Communicator> inner_;
  std::shared_ptr<Enqueued> on_device_;
};

struct Rank {
  std::shared_ptr<Enqueued> device = std::make_shared<Enqueued>();
  std::string error;
  bool peer = false;  // it was a PeerError
};

std::vector<Rank> on_ranks(int size, const WatchOptions& options,
                           const std::function<void(Communicator&, Enqueued&)>& body) {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  std::vector<Rank> ranks(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      Rank& rank = ranks[static_cast<std::size_t>(r)];
      try {
        std::unique_ptr<Communicator> local;
        {
          const std::lock_guard lock(mutex);
          local = registry.create<Communicator>("local", Table::empty("launch"));
        }
        local->connect({.rank = r, .size = size, .host = "test"});
        WatchedCommunicator watched(std::make_unique<WithDevices>(std::move(local), rank.device),
                                    options);
        body(watched, *rank.device);
      } catch (const PeerError& error) {
        rank.error = error.what();
        rank.peer = true;
      } catch (const std::exception& error) {
        rank.error = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return ranks;
}

void enqueue_all(DeviceCollectives& device) {
  float x[2] = {};
  device.begin_group();
  device.all_reduce(x, 1, DType::f32, Reduction::sum, nullptr);
  device.end_group();
  device.all_gather(x, x, 4, nullptr);
  device.reduce_scatter(x, x, 1, DType::f32, nullptr);
  device.broadcast(x, 4, 0, nullptr);
}

TEST(WatchedDevices, AreHandedOnByTheWholeAndItsParts) {
  const auto ranks = on_ranks(2, {}, [](Communicator& c, Enqueued&) {
    DeviceCollectives* const whole = c.device_collectives();
    ASSERT_NE(whole, nullptr);
    EXPECT_EQ(c.device_collectives(), whole);
    enqueue_all(*whole);
    bool waited = false;
    whole->wait([&] { waited = true; });
    EXPECT_TRUE(waited);
    const auto part = c.split(0, 0);
    part->device_collectives()->wait([] {});
  });
  for (const Rank& rank : ranks) {
    EXPECT_EQ(rank.error, "");
    EXPECT_EQ(rank.device->text, "{ sum } gather scatter broadcast waited waited ");
  }
}

// The others' wait for their devices is ended, as that in any collective is.
TEST(WatchedDevices, ARankThatEnqueuesNothingIsNamed) {
  for (const int late : {0, 2}) {
    std::atomic<int> told = 0;
    const auto ranks =
        on_ranks(3, {.timeout = 0.5, .grace = 60}, [&](Communicator& c, Enqueued& device) {
          DeviceCollectives& enqueued = *c.device_collectives();
          if (c.rank() == late) {
            c.working_on({"waiting for its data", 3});
            while (told < 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));
            c.barrier();
            return;
          }
          enqueue_all(enqueued);
          try {
            enqueued.wait([&] {
              while (!device.aborted) std::this_thread::sleep_for(std::chrono::milliseconds(10));
            });
          } catch (const CommunicationError&) {
            ++told;
            throw;
          }
        });
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      EXPECT_EQ(ranks[r].peer, r != 0);
      EXPECT_THAT(ranks[r].error, AllOf(StartsWith("rank " + std::to_string(late) + " on test"),
                                        HasSubstr("keeps the others waiting"),
                                        HasSubstr("is in collectives between the devices"),
                                        HasSubstr("step 3: waiting for its data")));
    }
  }
}

TEST(WatchedDevices, WhatFailsOnOneIsToldToAll) {
  const auto ranks = on_ranks(2, {}, [](Communicator& c, Enqueued& device) {
    DeviceCollectives& enqueued = *c.device_collectives();
    if (c.rank() == 1) device.failure = "the link is down";
    enqueue_all(enqueued);
    c.barrier();
  });
  EXPECT_EQ(ranks[1].error, "the link is down");
  EXPECT_TRUE(ranks[0].peer);
  EXPECT_THAT(ranks[0].error, AllOf(StartsWith("rank 1 on test"), HasSubstr("the link is down")));
}

}  // namespace
}  // namespace ftrain
