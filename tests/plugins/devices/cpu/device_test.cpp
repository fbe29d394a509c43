#include "plugins/devices/cpu/device/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "ftrain/base/error.h"
#include "ftrain/device/communicator.h"
#include "ftrain/graph/opdef.h"
#include "step.h"

namespace ftrain::cpu {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "no DeviceError";
}

TEST(CpuDevice, SaysWhatItIs) {
  const auto device = open_device();
  EXPECT_THAT(device->summary(), AllOf(HasSubstr("CPU "), HasSubstr("2 threads"),
                                       HasSubstr(best_isa()), HasSubstr("oneDNN ")));
}

TEST(CpuDevice, RefusesOtherPrecisions) {
  CpuDevice device;
  for (const char* precision : {"tf32", "fp16"}) {
    device.precision = precision;
    EXPECT_THAT(message_of([&] { device.open(0, 1); }),
                AllOf(HasSubstr(precision), HasSubstr("fp32"), HasSubstr("bf16")));
  }
}

TEST(CpuDevice, RefusesASecondInstructionSetInOneProcess) {
  const auto first = open_device();
  if (best_isa() == "plain") GTEST_SKIP() << "this processor has only one";
  EXPECT_THAT(message_of([&] { open_device("auto", "plain"); }),
              AllOf(HasSubstr("plain"), HasSubstr(best_isa())));
}

TEST(CpuDevice, RefusesInstructionsThatTheProcessorLacks) {
  if (best_isa() == "avx512") GTEST_SKIP() << "this processor has them all";
  EXPECT_THAT(message_of([&] { open_device("auto", "avx512"); }), HasSubstr("avx512"));
}

TEST(CpuDevice, SharesCoresAmongRanks) {
  CpuDevice device;
  device.open(0, 100000);
  EXPECT_THAT(device.summary(), HasSubstr(", 1 thread,"));
}

TEST(CpuDevice, RunsABitIdenticalStepTwice) {
  Graph graph;
  build_step(graph, true);
  EXPECT_EQ(run_steps(*open_device(), graph, 3), run_steps(*open_device(), graph, 3));
}

TEST(CpuDevice, AProgramMayRunOnAnotherThreadThanItsMaker) {
  Graph graph;
  build_step(graph, true);
  const auto device = open_device();
  const auto store = device->make_store();
  const auto executable =
      device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
  fill_states(*store);
  fill_inputs(*executable);
  std::thread([&] { executable->run(); }).join();
  EXPECT_EQ(results(*executable, *store), run_steps(*device, graph));
}

TEST(CpuDevice, StoresReadBackWhatWasWritten) {
  Graph graph;
  build_step(graph, true);
  const auto device = open_device();
  const auto store = device->make_store();
  const auto executable =
      device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
  EXPECT_TRUE(store->has("conv2.momentum"));
  EXPECT_FALSE(store->has("conv3"));
  for (const auto& [name, values] : results(*executable, *store)) {
    if (store->has(name)) {
      EXPECT_THAT(values, testing::Each(0.0f)) << name;
    }
  }
  fill_states(*store);
  const Tensors found = results(*executable, *store);
  int blocked = 0;
  for (const StateStore::Entry& entry : store->entries()) {
    const std::string& name = entry.spec.name;
    EXPECT_EQ(found.at(name), noise(entry.spec.type.shape.elements(), seed_of(name))) << name;
    if (!entry.spec.type.layout.empty()) ++blocked;
  }
  EXPECT_GE(blocked, 4);
  float value = 0;
  EXPECT_THAT(message_of([&] { store->read("convv2", &value); }), HasSubstr("'conv2'"));
}

TEST(CpuDevice, NamesWhatAProgramHas) {
  Graph graph;
  build_step(graph, false);
  const auto device = open_device();
  const auto store = device->make_store();
  const auto executable =
      device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
  float value = 0;
  EXPECT_THAT(message_of([&] { executable->read("embeding", &value); }), HasSubstr("'embedding'"));
  EXPECT_THAT(message_of([&] { executable->write("imag", &value); }), HasSubstr("'image'"));
}

TEST(CpuDevice, SaysHowMuchMemoryIsMissing) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, Shape{std::int64_t{1} << 44}});
  graph.fetch("y", ops::scale(x, 2));
  const auto device = open_device();
  const auto store = device->make_store();
  EXPECT_THAT(message_of([&] {
                device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
              }),
              AllOf(HasSubstr("64.0 TiB"), HasSubstr("batch")));
}

TEST(CpuDevice, NamesAnOpWithoutKernel) {
  static const OpDef strange{.name = "strange", .infer = [](const Node& node) {
                               return std::vector<TensorType>{node.input(0)};
                             }};
  Graph graph;
  const Value x = graph.input("x", {DType::f32, Shape{4}});
  graph.fetch("y", graph.emit(strange, {x}, {}, "layer7"));
  EXPECT_THAT(message_of([&] { open_device()->prepare(graph, nullptr, nullptr); }),
              AllOf(HasSubstr("strange"), HasSubstr("layer7"), HasSubstr("f32[4]"),
                    HasSubstr("add_kernel"), HasSubstr("[plugins] load")));
}

TEST(CpuDevice, PrintsItsPrograms) {
  Graph graph;
  build_step(graph, true);
  const auto device = open_device();
  const Program program = device->prepare(graph, nullptr, nullptr);
  EXPECT_THAT(program.text(), AllOf(HasSubstr("conv2d("), HasSubstr("by [onednn direct]"),
                                    HasSubstr("arena+"), HasSubstr("fetch loss")));
  EXPECT_THAT(program.kernels_text(), AllOf(HasSubstr("conv2d: onednn "),
                                            HasSubstr("not onednn widened groups: for small")));
  EXPECT_GE(program.plan.arena_bytes, program.plan.arena_floor);
}

// Two ranks that hold the same numbers, seen from rank 0.
class Twin final : public Communicator {
 public:
  void connect(const RankPlace&) override {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  const RankPlace& place() const override { return place_; }
  void all_reduce(void* data, std::int64_t count, DType, Reduction) override {
    ++messages;
    for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(data)[i] *= 2;
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    std::memcpy(out, in, bytes);
    std::memcpy(static_cast<char*>(out) + bytes, in, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType) override {
    for (std::int64_t i = 0; i < count; ++i) {
      static_cast<float*>(out)[i] = 2 * static_cast<const float*>(in)[i];
    }
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    broadcast_bytes = bytes;
    if (root == 1) *static_cast<float*>(data) = 42;
  }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return nullptr; }
  void abort(const std::string&) override {}

  int messages = 0;
  std::size_t broadcast_bytes = 0;

 private:
  RankPlace place_{.size = 2};
};

TEST(Collectives, MoveTensorsThroughTheCommunicator) {
  Graph graph;
  const Value a = graph.input("a", {DType::f32, Shape{4, 3}});
  const Value b = graph.input("b", {DType::f32, Shape{5}});
  const Value large = graph.input("large", {DType::f32, Shape{100000}});
  const std::vector<Value> sums = ops::all_reduce_sum({a, b, large}, 2);
  graph.fetch("sum_a", sums[0]);
  graph.fetch("sum_b", sums[1]);
  graph.fetch("sum_large", sums[2]);
  graph.fetch("gathered", ops::all_gather(a, 2));
  graph.fetch("scattered", ops::reduce_scatter(a, 2));
  graph.fetch("broadcast", ops::broadcast(b, 1, 2));
  const auto device = open_device();
  const auto store = device->make_store();
  Twin decomposition;
  const auto executable =
      device->compile(device->prepare(graph, store.get(), &decomposition), *store, &decomposition);
  fill_inputs(*executable);
  executable->run();
  const Tensors found = results(*executable, *store);
  const std::vector<float> va = noise(12, seed_of("a")), vb = noise(5, seed_of("b"));
  const std::vector<float> vl = noise(100000, seed_of("large"));
  for (std::size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(found.at("sum_a")[i], 2 * va[i]);
    EXPECT_EQ(found.at("gathered")[i], va[i]);
    EXPECT_EQ(found.at("gathered")[i + 12], va[i]);
    if (i < 6) {
      EXPECT_EQ(found.at("scattered")[i], 2 * va[i]);
    }
  }
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(found.at("sum_b")[i], 2 * vb[i]);
    EXPECT_EQ(found.at("broadcast")[i], i == 0 ? 42 : vb[i]);
  }
  for (std::size_t i = 0; i < vl.size(); ++i) ASSERT_EQ(found.at("sum_large")[i], 2 * vl[i]);
  EXPECT_EQ(decomposition.messages, 2);  // the two small ones together
  EXPECT_EQ(decomposition.broadcast_bytes, 20u);
}

TEST(Collectives, WantACommunicatorOfTheGraphsSize) {
  Graph graph;
  const Value a = graph.input("a", {DType::f32, Shape{4}});
  graph.fetch("sum", ops::all_reduce_sum(a, 3));
  const auto device = open_device();
  const auto store = device->make_store();
  Twin decomposition;
  EXPECT_THAT(message_of([&] { device->prepare(graph, store.get(), &decomposition); }),
              AllOf(HasSubstr("3 ranks"), HasSubstr("has 2")));
  EXPECT_THAT(message_of([&] {
                device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
              }),
              HasSubstr("without a communicator"));
}

}  // namespace
}  // namespace ftrain::cpu
