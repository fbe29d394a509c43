// Ranks that are threads, each with a GPU of the stand-in's and one collective's kernel on it, and
// what the CPU device's kernel makes of the same tensors.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/graph/graph.h"
#include "ftrain/plugin/registry.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/runtime/capture.h"
#include "plugins/devices/cuda/runtime/host_work.h"
#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/staged_collectives.h"
#include "plugins/devices/cuda/runtime/stream.h"

namespace ftrain::cuda {

using Bytes = std::vector<char>;

inline std::unique_ptr<Communicator> make_local() {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  const std::lock_guard lock(mutex);
  return registry.create<Communicator>("local", Table::empty("launch"));
}

// What a communicator that knows devices is asked for; it goes through the host all the same.
class CountedCollectives final : public DeviceCollectives {
 public:
  CountedCollectives(Communicator& communicator, HostLane& lane) : inner_(communicator, lane) {}

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                  void* stream) override {
    note();
    inner_.all_reduce(data, count, dtype, reduction, stream);
  }
  void all_gather(const void* in, void* out, std::size_t bytes, void* stream) override {
    note();
    inner_.all_gather(in, out, bytes, stream);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      void* stream) override {
    note();
    inner_.reduce_scatter(in, out, count, dtype, stream);
  }
  void broadcast(void* data, std::size_t bytes, int root, void* stream) override {
    note();
    inner_.broadcast(data, bytes, root, stream);
  }
  void begin_group() override {
    EXPECT_FALSE(in_group_);
    in_group_ = true;
    ++groups;
  }
  void end_group() override {
    EXPECT_TRUE(in_group_);
    in_group_ = false;
  }

  int calls = 0, grouped = 0, groups = 0;

 private:
  void note() {
    ++calls;
    if (in_group_) ++grouped;
  }
  StagedCollectives inner_;
  bool in_group_ = false;
};

// A rank's communicator, which may know devices.
class Ranks final : public Communicator {
 public:
  Ranks(int rank, int size) : inner_(make_local()) {
    inner_->connect({.rank = rank, .size = size, .job = "collectives"});
  }
  void connect(const RankPlace&) override {}
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
    return inner_->split(color, key);
  }
  void abort(const std::string& reason) override { inner_->abort(reason); }
  DeviceCollectives* device_collectives() override { return on_device.get(); }

  std::unique_ptr<CountedCollectives> on_device;

 private:
  std::unique_ptr<Communicator> inner_;
};

inline void on_ranks(int size, const std::function<void(Ranks&)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Ranks ranks(rank, size);
      try {
        body(ranks);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
        ranks.abort(error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A collective, and what a rank gives it.
struct Exchange {
  std::vector<TensorType> types;
  std::function<Value(const std::vector<Value>&)> op;
};

inline Value add_to(Graph& graph, const Exchange& exchange) {
  std::vector<Value> inputs;
  for (std::size_t i = 0; i < exchange.types.size(); ++i) {
    inputs.push_back(graph.input("x" + std::to_string(i), exchange.types[i]));
  }
  return exchange.op(inputs);
}

inline Bytes contents(const TensorType& type, int rank, std::size_t seed) {
  Bytes bytes(type.bytes());
  std::uint64_t state = seed * 100 + static_cast<std::uint64_t>(rank) + 1;
  const auto random = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 32;
  };
  const auto fill = [&]<class T>(T) {
    for (std::size_t i = 0; i < bytes.size() / sizeof(T); ++i) {
      const std::uint64_t drawn = random();
      auto value = static_cast<T>(static_cast<std::int32_t>(drawn));
      // Of all sizes, so that the order of a sum shows in its bits.
      if constexpr (!std::is_integral_v<T>) value *= static_cast<T>(1 << drawn % 16);
      std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
  };
  switch (type.dtype) {
    case DType::f32:
      fill(0.0f);
      break;
    case DType::f64:
      fill(0.0);
      break;
    default:
      fill(std::int64_t{0});
  }
  return bytes;
}

inline std::vector<Bytes> all_contents(const Exchange& exchange, int rank, std::size_t seed) {
  std::vector<Bytes> all;
  for (std::size_t i = 0; i < exchange.types.size(); ++i) {
    all.push_back(contents(exchange.types[i], rank, seed * 1000 + i));
  }
  return all;
}

// What the CPU device's kernel makes of it.
inline std::vector<Bytes> on_cpu(const Exchange& exchange, Communicator& communicator,
                                 std::size_t seed) {
  Graph graph;
  const Node& node = graph.node(add_to(graph, exchange).node_index());
  KernelList list;
  cpu::add_collective_kernels(list);
  const KernelEnvironment environment{.isa = {}, .communicator = &communicator};
  const auto kernel = list.choose(node, environment).def->make(node, environment);
  std::vector<Bytes> inputs = all_contents(exchange, communicator.rank(), seed), outputs;
  for (const TensorType& type : node.outputs) outputs.emplace_back(type.bytes());
  std::vector<void*> in, out;
  for (Bytes& bytes : inputs) in.push_back(bytes.data());
  for (Bytes& bytes : outputs) out.push_back(bytes.data());
  std::vector<std::uint64_t> scratch(kernel->scratch_bytes() / 8 + 8);
  kernel->bind(in, out, scratch.data());
  kernel->launch();
  return outputs;
}

// A collective's kernel on a rank's GPU with tensors of its own.
class OnGpu {
 public:
  // `in_place`: results take their inputs' places, where the kernel can do that.
  OnGpu(const Exchange& exchange, Ranks& ranks, bool in_place, bool knows_devices)
      : exchange_(exchange), ranks_(ranks) {
    context_.stream = stream_;
    context_.host = &lane_;
    if (knows_devices) ranks.on_device = std::make_unique<CountedCollectives>(ranks, lane_);
    const Node& node = graph_.node(add_to(graph_, exchange).node_index());
    KernelList list;
    add_collective_kernels(list);
    const KernelEnvironment environment{.isa = {}, .communicator = &ranks, .device = &context_};
    kernel_ = list.choose(node, environment).def->make(node, environment);
    std::size_t total = 0;
    const auto place = [&total](const TensorType& type) {
      const std::size_t at = total;
      total += (type.bytes() + 63) / 64 * 64;
      return Place{at, type.bytes()};
    };
    for (const TensorType& type : exchange.types) inputs_.push_back(place(type));
    const std::size_t of_inputs = total;
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      outputs_.push_back(in_place ? inputs_[i] : place(node.outputs[i]));
    }
    contents_.resize(of_inputs);
    results_.resize(total);
    memory_ = DeviceMemory(total, "a rank's tensors");
    scratch_ = DeviceMemory(kernel_->scratch_bytes(), "scratch");
    std::vector<void*> in, out;
    for (const Place& input : inputs_) in.push_back(memory_.data() + input.offset);
    for (const Place& output : outputs_) out.push_back(memory_.data() + output.offset);
    kernel_->bind(in, out, scratch_.data());
  }
  ~OnGpu() { cudaStreamSynchronize(stream_); }

  void write(std::size_t seed) {
    const std::vector<Bytes> all = all_contents(exchange_, ranks_.rank(), seed);
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::memcpy(contents_.data() + inputs_[i].offset, all[i].data(), all[i].size());
    }
    cudaMemcpyAsync(memory_.data(), contents_.data(), contents_.size(), cudaMemcpyHostToDevice,
                    stream_);
  }
  void launch() { kernel_->launch(); }
  void capture() {
    Capture capture(stream_);
    launch();
    recording_ = capture.finish();
  }
  void replay() { recording_.launch(stream_); }
  void finish() {
    cuda::finish(stream_, "a test");
    lane_.raise();
  }
  std::vector<Bytes> read() {
    cudaMemcpyAsync(results_.data(), memory_.data(), results_.size(), cudaMemcpyDeviceToHost,
                    stream_);
    finish();
    std::vector<Bytes> results;
    for (const Place& output : outputs_) {
      const char* const begin = results_.data() + output.offset;
      results.emplace_back(begin, begin + output.bytes);
    }
    return results;
  }
  std::size_t scratch_bytes() const { return kernel_->scratch_bytes(); }

 private:
  const Exchange& exchange_;
  Graph graph_;
  Ranks& ranks_;
  HostLane lane_;
  Stream stream_;
  Context context_;
  struct Place {
    std::size_t offset, bytes;
  };
  std::vector<Place> inputs_, outputs_;
  DeviceMemory memory_, scratch_;
  Bytes contents_, results_;
  std::unique_ptr<Kernel> kernel_;
  Recording recording_;
};

}  // namespace ftrain::cuda
