// Collectives of the CUDA device between ranks that are threads, on the stand-in for GPUs: through
// the host's memory and by a communicator that knows devices, plain and captured, to the CPU
// device's bits.
#include <gmock/gmock.h>

#include "ftrain/base/error.h"
#include "ftrain/ops.h"
#include "plugins/devices/cuda/runtime/host_meeting.h"
#include "tests/cuda/collective_ranks.h"
#include "tests/cuda/standin/standin.h"

namespace ftrain::cuda {
namespace {

using testing::HasSubstr;

void expect_like_cpu(int size, const Exchange& exchange, bool in_place, bool knows_devices) {
  SCOPED_TRACE(std::to_string(size) + " ranks" + (in_place ? ", in place" : "") +
               (knows_devices ? ", by a communicator that knows devices" : ""));
  on_ranks(size, [&](Ranks& ranks) {
    OnGpu gpu(exchange, ranks, in_place, knows_devices);
    for (const std::size_t seed : {1, 2}) {
      gpu.write(seed);
      gpu.launch();
      const auto results = gpu.read();
      EXPECT_TRUE(results == on_cpu(exchange, ranks, seed)) << "plain, rank " << ranks.rank();
    }
    gpu.capture();
    for (const std::size_t seed : {3, 4, 5}) {
      gpu.write(seed);
      gpu.replay();
      const auto results = gpu.read();
      EXPECT_TRUE(results == on_cpu(exchange, ranks, seed)) << "replayed, rank " << ranks.rank();
    }
  });
}

TensorType floats(Shape shape) {
  return {DType::f32, std::move(shape)};
}

// Large and small tensors, of more than one type, more than one launch can pack.
Exchange gradients(int ranks) {
  Exchange exchange;
  for (std::int64_t i = 0; i < 200; ++i) exchange.types.push_back(floats({1 + i % 7 * 8}));
  exchange.types.push_back(floats({70'001}));
  exchange.types.push_back({DType::i64, {3}});
  exchange.types.push_back(floats({65'536}));
  exchange.types.push_back({DType::f64, {5}});
  exchange.types.push_back(floats({65'537}));
  exchange.op = [ranks](const std::vector<Value>& x) { return ops::all_reduce_sum(x, ranks)[0]; };
  return exchange;
}

Exchange one(TensorType type, std::function<Value(Value)> op) {
  return {{std::move(type)},
          [op = std::move(op)](const std::vector<Value>& x) { return op(x[0]); }};
}

class Collectives : public testing::TestWithParam<int> {
 protected:
  void TearDown() override { standin::reset(); }
  const int ranks = GetParam();
};
INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, testing::Values(2, 3, 4));

TEST_P(Collectives, SumManyTensorsToTheCpusBits) {
  for (const bool knows_devices : {false, true}) {
    expect_like_cpu(ranks, gradients(ranks), false, knows_devices);
    expect_like_cpu(ranks, gradients(ranks), true, knows_devices);
  }
  const auto sum = [this](Value x) { return ops::all_reduce_sum(x, ranks); };
  expect_like_cpu(ranks, one(floats({5}), sum), true, false);
}

TEST_P(Collectives, GatherRowsToTheCpusBits) {
  const auto gather = [this](Value x) { return ops::all_gather(x, ranks); };
  const auto rounded = [this](Value x) { return ops::all_gather(x, ranks, DType::bf16); };
  for (const bool knows_devices : {false, true}) {
    expect_like_cpu(ranks, one(floats({7, 33}), gather), false, knows_devices);
    expect_like_cpu(ranks, one({DType::i64, {5}}, gather), false, knows_devices);
    expect_like_cpu(ranks, one(floats({7, 33}), rounded), false, knows_devices);
    expect_like_cpu(ranks, one(floats({8, 64}), rounded), false, knows_devices);
  }
}

TEST_P(Collectives, ScatterSumsToTheCpusBits) {
  const auto scatter = [this](Value x) { return ops::reduce_scatter(x, ranks); };
  for (const bool knows_devices : {false, true}) {
    expect_like_cpu(ranks, one(floats({12, 33}), scatter), false, knows_devices);
  }
}

TEST_P(Collectives, BroadcastFromEachRank) {
  for (int root = 0; root < ranks; ++root) {
    const auto broadcast = [&](Value x) { return ops::broadcast(x, root, ranks); };
    expect_like_cpu(ranks, one(floats({3, 17}), broadcast), false, false);
    expect_like_cpu(ranks, one(floats({3, 17}), broadcast), true, true);
  }
}

// More than the pinned buffer holds goes piece by piece.
TEST(LargeCollectives, GoInPieces) {
  constexpr std::int64_t whole = (HostLane::buffer_bytes + 4096) / 4, part = whole / 2;
  const std::vector<Exchange> exchanges{
      one(floats({whole}), [](Value x) { return ops::all_reduce_sum(x, 2); }),
      one(floats({part}), [](Value x) { return ops::all_gather(x, 2); }),
      one(floats({whole}), [](Value x) { return ops::reduce_scatter(x, 2); }),
      one(floats({whole}), [](Value x) { return ops::broadcast(x, 1, 2); })};
  for (const Exchange& exchange : exchanges) {
    on_ranks(2, [&](Ranks& ranks) {
      OnGpu gpu(exchange, ranks, false, false);
      gpu.write(1);
      gpu.launch();
      const auto results = gpu.read();
      EXPECT_TRUE(results == on_cpu(exchange, ranks, 1));
    });
  }
  standin::reset();
}

// Small tensors are one, large ones are their own, all of them in one group.
TEST(GroupedCollectives, AreOneMessageForSmallTensorsAndOneForEachLargeOne) {
  const Exchange exchange = gradients(2);
  on_ranks(2, [&](Ranks& ranks) {
    OnGpu gpu(exchange, ranks, true, true);
    gpu.write(1);
    gpu.launch();
    gpu.finish();
    EXPECT_EQ(ranks.on_device->groups, 1);
    EXPECT_EQ(ranks.on_device->grouped, 1 + 4);  // 70,001 and 65,537 floats, i64, f64
    EXPECT_EQ(ranks.on_device->calls, ranks.on_device->grouped);
    std::size_t small = 65'536 * 4;
    for (std::size_t i = 0; i < 200; ++i) small += exchange.types[i].bytes();
    EXPECT_EQ(gpu.scratch_bytes(), small);
  });
  standin::reset();
}

// What a communicator throws on a thread of the driver reaches the one that waits, then and later.
TEST(FailedCollectives, ReachWhoWaits) {
  const Exchange exchange = one(floats({1000}), [](Value x) { return ops::all_reduce_sum(x, 2); });
  for (const bool captured : {false, true}) {
    on_ranks(2, [&](Ranks& ranks) {
      OnGpu gpu(exchange, ranks, false, false);
      gpu.write(1);
      gpu.launch();
      gpu.finish();
      if (captured) gpu.capture();
      if (ranks.rank() == 1) ranks.abort("the disk is full");
      for (int i = 0; i < 2; ++i) {
        captured ? gpu.replay() : gpu.launch();
        try {
          gpu.finish();
          ADD_FAILURE() << "rank " << ranks.rank() << " was not told";
        } catch (const CommunicationError& error) {
          EXPECT_THAT(error.what(), HasSubstr("the disk is full"));
        }
      }
    });
  }
  standin::reset();
}

// One more GPU is in the process whose rank never comes, as where CUDA lets only one function of
// the host run at a time.
TEST(FailedCollectives, AreForetoldWhereHostFunctionsCannotMeet) {
  const auto meet = [](std::chrono::milliseconds limit) {
    on_ranks(2, [&](Ranks& ranks) {
      const Machine machine(find_gpu(-1, ranks.rank(), 2), {});
      const bool alone = limit < std::chrono::seconds(1);
      try {
        check_host_calls_meet(machine, ranks, limit);
        EXPECT_FALSE(alone);
      } catch (const DeviceError& error) {
        EXPECT_TRUE(alone) << error.what();
        EXPECT_THAT(error.what(), HasSubstr("make the ranks processes"));
      }
      ranks.barrier();
    });
  };
  meet(std::chrono::seconds(20));
  {
    const Machine machine(find_gpu(-1, 2, 3), {});
    meet(std::chrono::milliseconds(100));
  }
  meet(std::chrono::seconds(20));
  standin::reset();
}

TEST(FailedCollectives, RefuseWhatTheyCannotDo) {
  on_ranks(2, [](Ranks& ranks) {
    Graph graph;
    const Value three = ops::all_reduce_sum(graph.input("x", floats({4})), 3);
    const Value narrow = ops::all_reduce_sum(graph.input("y", {DType::bf16, {4}}), 2);
    KernelList list;
    add_collective_kernels(list);
    Context context;
    const KernelEnvironment environment{.isa = {}, .communicator = &ranks, .device = &context};
    const auto refusal = [&](Value value) {
      return list.all()[0].refuse(graph.node(value.node_index()), environment);
    };
    EXPECT_THAT(refusal(three), HasSubstr("for 3 ranks and the communicator has 2"));
    EXPECT_THAT(refusal(narrow), HasSubstr("sum f32, f64 and i64"));
    const Value sum = ops::all_reduce_sum(graph.input("z", floats({4})), 2);
    const Node& node = graph.node(sum.node_index());
    float memory[4] = {};
    std::vector<void*> at{memory};
    const auto bind = [&](const KernelEnvironment& with) {
      list.choose(node, with).def->make(node, with)->bind(at, at, nullptr);
    };
    EXPECT_THROW(bind({.isa = {}, .device = &context}), DeviceError);  // no communicator
    EXPECT_THROW(bind(environment), DeviceError);                      // no lane
  });
}

}  // namespace
}  // namespace ftrain::cuda
