// A rank's device with a communicator that takes its time, and steps with gradients in buckets.
#pragma once

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/model/backbone.h"
#include "ftrain/plugin/registry.h"
#include "step.h"

namespace ftrain::cpu {

inline Registry& registry() {
  static Registry made({FTRAIN_PLUGINS});
  return made;
}

// Two ranks that hold the same numbers, seen from rank 0. Their sums take a while.
class SlowTwin final : public Communicator {
 public:
  explicit SlowTwin(int milliseconds = 0) : pause_(milliseconds) {}
  void connect(const RankPlace&) override {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  const RankPlace& place() const override { return place_; }
  void all_reduce(void* data, std::int64_t count, DType, Reduction) override {
    std::this_thread::sleep_for(pause_);
    if (while_summing) while_summing();
    threads.push_back(std::this_thread::get_id());
    if (static_cast<int>(threads.size()) == fails_at) throw CommunicationError("rank 1 is gone");
    for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(data)[i] *= 2;
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    gathered_bytes = bytes;
    std::memcpy(out, in, bytes);
    std::memcpy(static_cast<char*>(out) + bytes, in, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType) override {
    for (std::int64_t i = 0; i < count; ++i) {
      static_cast<float*>(out)[i] = 2 * static_cast<const float*>(in)[i];
    }
  }
  void broadcast(void*, std::size_t, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return nullptr; }
  void abort(const std::string&) override {}

  std::vector<std::thread::id> threads;  // that summed, one for each sum
  std::function<void()> while_summing;
  int fails_at = 0;  // the number of a sum, from 1
  std::size_t gathered_bytes = 0;

 private:
  std::chrono::milliseconds pause_;
  RankPlace place_{.size = 2};
};

inline std::unique_ptr<CpuDevice> open_overlapping(bool overlap, int threads = 1) {
  auto device = std::make_unique<CpuDevice>();
  device->threads = threads;
  device->autotune = false;
  device->pin = "off";
  device->overlap = overlap;
  device->open(0, 1);
  return device;
}

// A backbone's step whose gradients are summed in buckets of `bucket` bytes, as a run's are.
inline std::unique_ptr<Graph> training_step(const char* backbone_keys, std::int64_t batch,
                                            std::int64_t size, std::int64_t ranks,
                                            std::size_t bucket) {
  const auto backbone = registry().create<Backbone>(Job::parse(backbone_keys));
  auto graph = std::make_unique<Graph>();
  const Value image = graph->input("image", {DType::f32, {batch, 3, size, size}});
  Build build{.graph = *graph};
  const Value embedding = backbone->forward(Scope(build), image);
  std::vector<Value> parameters;
  for (const Graph::State& state : graph->states()) {
    if (state.spec.role == StateSpec::Role::parameter && state.spec.trainable) {
      parameters.insert(parameters.begin(), state.value);
    }
  }
  const Value loss = ops::mean(ops::mul(embedding, embedding));
  const Value one = ops::constant(*graph, 1), rate = ops::constant(*graph, 0.01);
  const Seed seed{loss, one};
  std::vector<Value> summed, waiting;
  std::size_t bytes = 0;
  for (const Value& gradient : gradients(*graph, {&seed, 1}, parameters)) {
    waiting.push_back(gradient);
    bytes += gradient.type().bytes();
    if (bytes < bucket) continue;
    for (const Value& sum : ops::all_reduce_sum(waiting, ranks)) summed.push_back(sum);
    waiting.clear();
    bytes = 0;
  }
  for (const Value& sum : ops::all_reduce_sum(waiting, ranks)) summed.push_back(sum);
  const Value squared = ops::squared_norm(summed);
  const Value ok = ops::all_finite({loss, squared});
  graph->fetch("loss", ops::all_reduce_sum(loss, ranks));
  graph->fetch("norm", squared);
  const auto update = std::make_shared<TestMomentum>();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    StateSpec slot = graph->state_of(parameters[i])->spec;
    slot.role = StateSpec::Role::slot;
    slot.name += ".momentum";
    ops::optimizer_update(parameters[i], {graph->state(slot)}, summed[i], rate, {}, ok, {}, update,
                          1, 0);
  }
  for (const auto& write : build.at_end) write(ok);
  return graph;
}

inline constexpr const char* iresnet =
    "[backbone]\nplugin = \"iresnet\"\ndepth = 18\nembedding = 16\n";
inline constexpr const char* mobilefacenet =
    "[backbone]\nplugin = \"mobilefacenet\"\nscale = 1\nembedding = 16\n";

}  // namespace ftrain::cpu
