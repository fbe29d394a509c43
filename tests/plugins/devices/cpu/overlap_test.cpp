// Collectives beside kernels: that they are, that they change no bit, and what happens when one
// fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <future>

#include "ftrain/graph/opdef.h"
#include "overlap.h"

namespace ftrain::cpu {
namespace {

using testing::HasSubstr;

// The kernels that began after a collective began, and ended before it ended.
int kernels_beside(const std::vector<TimelineEvent>& events) {
  int beside = 0;
  for (const TimelineEvent& collective : events) {
    if (collective.lane != 1) continue;
    for (const TimelineEvent& kernel : events) {
      beside += kernel.lane == 0 && kernel.name != "wait" && collective.begin <= kernel.begin &&
                kernel.end <= collective.end;
    }
  }
  return beside;
}

TEST(Overlap, KernelsRunWhileGradientsAreSummed) {
  const auto graph = training_step(mobilefacenet, 6, 96, 2, 1 << 20);
  for (const bool overlap : {true, false}) {
    SCOPED_TRACE(overlap);
    const auto device = open_overlapping(overlap);
    const auto store = device->make_store();
    SlowTwin twin(50);
    const auto executable =
        device->compile(device->prepare(*graph, store.get(), &twin), *store, &twin);
    fill_states(*store);
    fill_inputs(*executable);
    const std::vector<TimelineEvent> events = executable->run_with_timeline();
    int collectives = 0, waits = 0;
    double last = 0;
    for (const TimelineEvent& event : events) {
      EXPECT_LE(0, event.begin);
      EXPECT_LE(event.begin, event.end);
      waits += event.name == "wait";
      if (event.lane != 1) continue;
      ++collectives;
      EXPECT_EQ(event.op, "all_reduce");
      EXPECT_GE(event.end - event.begin, 0.05);
      EXPECT_GE(event.begin, last) << "two collectives at once";
      last = event.end;
    }
    EXPECT_GE(collectives, 4);
    EXPECT_GE(waits, 1);
    if (overlap)
      EXPECT_GE(kernels_beside(events), 10);
    else
      EXPECT_EQ(kernels_beside(events), 0);
    const bool here = twin.threads.front() == std::this_thread::get_id();
    EXPECT_EQ(here, !overlap);
    EXPECT_THAT(twin.threads, testing::Each(twin.threads.front()));
  }
}

// An op of the tests' own, whose kernel calls a function.
std::function<void()> called;
Value call(Value x) {
  static const OpDef op{.name = "call", .infer = [](const Node& node) {
                          return std::vector<TensorType>{node.input(0)};
                        }};
  return x.graph().emit(op, {x});
}
void add_call(CpuDevice& device) {
  struct Calling final : Kernel {
    void bind(std::span<void* const>, std::span<void* const>, void*) override {}
    void launch() override { called(); }
  };
  const_cast<KernelList&>(device.kernels())
      .add({"call", "plain", 0, nullptr,
            [](const Node&, const KernelEnvironment&) -> std::unique_ptr<Kernel> {
              return std::make_unique<Calling>();
            }});
}

// Without a clock: the sum ends when a kernel behind it has run.
TEST(Overlap, ASumMayWaitForAKernelBehindIt) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {5}});
  graph.fetch("sum", ops::all_reduce_sum(ops::scale(x, 2), 2));
  graph.fetch("called", call(x));
  const auto device = open_overlapping(true);
  add_call(*device);
  const auto store = device->make_store();
  std::promise<void> ran;
  std::future<void> running = ran.get_future();
  called = [&] { ran.set_value(); };
  SlowTwin twin;
  std::future_status status{};
  twin.while_summing = [&] { status = running.wait_for(std::chrono::seconds(20)); };
  const auto executable =
      device->compile(device->prepare(graph, store.get(), &twin), *store, &twin);
  fill_inputs(*executable);
  executable->run();
  EXPECT_EQ(status, std::future_status::ready);
  EXPECT_EQ(results(*executable, *store).at("sum")[3], noise(5, seed_of("x"))[3] * 2 * 2);
}

// Whether a kernel that comes too early would be seen: sums that take their time, and kernels that
// use them at once.
TEST(Overlap, KernelsWaitForWhatTheyUse) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {100, 7}});
  Value y = ops::scale(x, 3);
  Value other = ops::scale(x, 5);
  for (int i = 0; i < 4; ++i) {
    const Value sum = ops::all_reduce_sum(y, 2);
    other = ops::relu(ops::add(other, x));  // beside
    y = ops::add(sum, x);
  }
  graph.fetch("y", y);
  graph.fetch("other", other);
  graph.fetch("sum", ops::all_reduce_sum(ops::scale(y, 2), 2));  // for which the end waits
  Tensors found[2];
  for (const bool overlap : {false, true}) {
    const auto device = open_overlapping(overlap);
    const auto store = device->make_store();
    SlowTwin twin(10);
    const auto executable =
        device->compile(device->prepare(graph, store.get(), &twin), *store, &twin);
    fill_inputs(*executable);
    executable->run();
    found[overlap] = results(*executable, *store);
    executable->run();
    EXPECT_EQ(results(*executable, *store), found[overlap]);
    executable->run_with_timeline();
    EXPECT_EQ(results(*executable, *store), found[overlap]);
  }
  EXPECT_EQ(found[0], found[1]);
  const std::vector<float> vx = noise(700, seed_of("x"));
  for (std::size_t i = 0; i < vx.size(); ++i) {
    ASSERT_NEAR(found[1].at("y")[i], 63 * vx[i], 1e-4);
    ASSERT_NEAR(found[1].at("sum")[i], 252 * vx[i], 1e-3);
  }
}

// Three steps on ranks that are threads: what each has in the end.
std::vector<Tensors> run_ranks(const char* backbone, int ranks, bool overlap) {
  const auto graph = training_step(backbone, 2, 32, ranks, 100 << 10);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < ranks; ++rank) {
    communicators.push_back(registry().create<Communicator>("local", Table::empty("launch")));
  }
  std::vector<Tensors> found(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      Communicator* const communicator = communicators[static_cast<std::size_t>(rank)].get();
      communicator->connect({.rank = rank, .size = ranks, .job = "overlap"});
      const auto device = open_overlapping(overlap);
      const auto store = device->make_store();
      const auto executable =
          device->compile(device->prepare(*graph, store.get(), communicator), *store, communicator);
      fill_states(*store);
      for (const Graph::Named& input : graph->inputs()) {
        const auto count = static_cast<std::size_t>(input.value.shape().elements());
        const auto all = noise(static_cast<std::int64_t>(count) * ranks, seed_of(input.name));
        executable->write(input.name, all.data() + static_cast<std::size_t>(rank) * count);
      }
      for (int step = 0; step < 3; ++step) {
        if (step == 1)
          executable->run_with_timeline();
        else
          executable->run();
      }
      found[static_cast<std::size_t>(rank)] = results(*executable, *store);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return found;
}

void expect_same(const Tensors& a, const Tensors& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, values] : a) {
    EXPECT_EQ(0, std::memcmp(values.data(), b.at(name).data(), 4 * values.size()))
        << what << ": " << name;
  }
}

class OverlapOfRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, OverlapOfRanks, testing::Values(1, 2, 3));

TEST_P(OverlapOfRanks, ChangesNoBit) {
  const char* const backbone = GetParam() == 2 ? iresnet : mobilefacenet;
  const auto apart = run_ranks(backbone, GetParam(), false);
  const auto beside = run_ranks(backbone, GetParam(), true);
  ASSERT_TRUE(std::isfinite(apart[0].at("loss")[0]));
  for (std::size_t rank = 0; rank < apart.size(); ++rank) {
    expect_same(beside[rank], apart[rank], "rank " + std::to_string(rank));
    EXPECT_EQ(beside[rank].at("loss"), beside[0].at("loss"));
  }
}

TEST(Overlap, AFailingCollectiveEndsTheStepAndTheNextStepIsWhole) {
  const auto graph = training_step(mobilefacenet, 2, 32, 2, 100 << 10);
  const auto device = open_overlapping(true);
  Tensors expected;
  for (const int fails_at : {0, 1, 5}) {
    SCOPED_TRACE(fails_at);
    const auto store = device->make_store();
    SlowTwin twin(2);
    const auto executable =
        device->compile(device->prepare(*graph, store.get(), &twin), *store, &twin);
    fill_inputs(*executable);
    if (fails_at > 0) {
      fill_states(*store);
      twin.fails_at = fails_at;
      try {
        executable->run();
        ADD_FAILURE() << "the step ended";
      } catch (const CommunicationError& error) {
        EXPECT_THAT(error.what(), HasSubstr("rank 1 is gone"));
      }
      EXPECT_EQ(static_cast<int>(twin.threads.size()), fails_at);  // none behind it began
      twin.fails_at = 0;
    }
    fill_states(*store);
    executable->run();
    const Tensors found = results(*executable, *store);
    if (fails_at == 0)
      expected = found;
    else
      expect_same(found, expected, "after the failure");
  }
}

// An executable that is thrown away with collectives in flight: a kernel failed meanwhile.
TEST(Overlap, AFailingKernelDropsTheCollectivesBehindIt) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {5}});
  std::vector<Value> sums;
  for (int i = 0; i < 6; ++i) sums.push_back(ops::all_reduce_sum(ops::scale(x, i + 2.0), 2));
  graph.fetch("failed", call(x));
  for (std::size_t i = 0; i < sums.size(); ++i) {
    graph.fetch("sum" + std::to_string(i), sums[i]);
  }
  const auto device = open_overlapping(true);
  add_call(*device);
  const auto store = device->make_store();
  SlowTwin twin(20);
  const auto executable =
      device->compile(device->prepare(graph, store.get(), &twin), *store, &twin);
  fill_inputs(*executable);
  called = [] { throw DeviceError("a kernel failed"); };
  EXPECT_THROW(executable->run(), DeviceError);
  called = [] {};
  executable->run();  // waits for the one that was at work
  EXPECT_LT(twin.threads.size(), 12u);
  const Tensors found = results(*executable, *store);
  const std::vector<float> vx = noise(5, seed_of("x"));
  for (std::size_t i = 0; i < 6; ++i) {
    const auto factor = static_cast<float>(i + 2);
    EXPECT_EQ(found.at("sum" + std::to_string(i))[4], factor * vx[4] * 2);
  }
}

}  // namespace
}  // namespace ftrain::cpu
