// The CUDA device as a whole, on the stand-in for a GPU: streams run as late as they may and in
// drawn order there, so that a wait that is missing changes results.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/cuda/collective_ranks.h"
#include "tests/cuda/small_device.h"

namespace ftrain::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CudaDeviceTest : public testing::Test {
 protected:
  void TearDown() override { standin::reset(); }
};

void expect_close(const cpu::Tensors& found, const cpu::Tensors& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, values] : expected) {
    EXPECT_LT(cpu::distance(found.at(name), values), 2e-5) << name;
  }
}

// The same steps by the CPU's plain loops.
cpu::Tensors on_cpu(const Graph& graph, int steps) {
  const auto device = cpu::open_device("reference");
  Compiled compiled(*device, graph);
  for (int i = 0; i < steps; ++i) compiled.run(i);
  return compiled.results();
}

TEST_F(CudaDeviceTest, SaysWhatItIs) {
  EXPECT_THAT(open_cuda()->summary(), AllOf(HasSubstr("GPU 0"), HasSubstr("sm_90"),
                                            HasSubstr("CUDA 13.0"), HasSubstr("fp32")));
  EXPECT_THAT(open_cuda({}, 3, 8)->summary(), HasSubstr("GPU 3"));
}

TEST_F(CudaDeviceTest, OnlyEvaluationRoundsToTf32WhereItMay) {
  const Machine machine(find_gpu(-1, 0, 1), {.training = false, .evaluation = true});
  EXPECT_FALSE(machine.context_of(*small_program(true)).tf32);
  EXPECT_TRUE(machine.context_of(*small_program(false)).tf32);
}

TEST_F(CudaDeviceTest, StatesReadBackWhatWasWritten) {
  const auto device = open_cuda();
  Graph graph;
  const Value large = graph.state({.name = "large", .type = {DType::f32, {5, 1 << 20}}});
  graph.state({.name = "image", .type = {DType::f32, {3, 5, 7, 2}, "nhwc"}});
  graph.state({.name = "far", .type = {DType::f32, {100, 4}}, .memory = StateSpec::Memory::host});
  graph.fetch("sum", ops::sum(large));
  const Compiled compiled(*device, graph);
  for (const StateStore::Entry& entry : compiled.store->entries()) {
    const std::string& name = entry.spec.name;
    const auto expected = cpu::noise(entry.spec.type.shape.elements(), cpu::seed_of(name));
    std::vector<float> found(expected.size());
    compiled.store->read(name, found.data());
    EXPECT_EQ(found, expected) << name;
    const std::size_t first = expected.size() / 3, count = expected.size() / 2;
    std::vector<float> part(count, 7.0f);
    compiled.store->write_part(name, first, count, part.data());
    compiled.store->read(name, found.data());
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i], i >= first && i < first + count ? 7.0f : expected[i]) << name;
    }
    compiled.store->read_part(name, first - 1, 3, part.data());
    EXPECT_EQ(part[0], expected[first - 1]);
    EXPECT_EQ(part[1], 7.0f);
  }
  float value = 0;
  EXPECT_THAT(message_of([&] { compiled.store->read("larg", &value); }), HasSubstr("'large'"));
  EXPECT_THAT(message_of([&] { compiled.program->read("sun", &value); }), HasSubstr("'sum'"));
  EXPECT_THAT(message_of([&] { compiled.program->write("x", &value); }), HasSubstr("no input"));
}

TEST_F(CudaDeviceTest, StepsAreTheCpusAndCapturedOnesToTheBit) {
  const auto graph = small_program(true);
  constexpr int steps = 6;
  cpu::Tensors plain;
  for (const bool capture : {false, true}) {
    const auto device = open_cuda({.capture = capture});
    Compiled compiled(*device, *graph);
    for (int i = 0; i < steps; ++i) {
      compiled.run(i);
      float loss = -1;
      compiled.program->read("loss", &loss);
      EXPECT_GT(loss, 0);
    }
    const cpu::Tensors found = compiled.results();
    expect_close(found, on_cpu(*graph, steps));
    if (capture) {
      EXPECT_EQ(found, plain);
    }
    plain = found;
  }
}

// Inputs of later steps are on their way while earlier ones wait for their turn.
TEST_F(CudaDeviceTest, InputsOfManyStepsAreUnderWayAtOnce) {
  const auto graph = small_program(true);
  constexpr int steps = 11;
  const cpu::Tensors expected = on_cpu(*graph, steps);
  for (const std::uint64_t seed : {1, 2, 3}) {
    standin::set(standin::Settings{.seed = seed});
    const auto device = open_cuda();
    Compiled compiled(*device, *graph);
    compiled.write(0);
    for (int i = 0; i < steps; ++i) {
      compiled.program->run();
      if (i + 1 < steps) compiled.write(99);  // replaced before it is used
      if (i + 1 < steps) compiled.write(i + 1);
    }
    expect_close(compiled.results(), expected);
  }
}

TEST_F(CudaDeviceTest, InputsThatAreNotWrittenStay) {
  const auto graph = small_program(false);
  const auto device = open_cuda();
  Compiled compiled(*device, *graph);
  compiled.run(1);
  const cpu::Tensors first = compiled.results();
  for (int i = 0; i < 5; ++i) compiled.program->run();
  EXPECT_EQ(compiled.results(), first);
}

TEST_F(CudaDeviceTest, WhatIsKeptIsDoneAnewWhenStatesWereWritten) {
  const auto graph = small_program(false);
  const auto device = open_cuda();
  Compiled compiled(*device, *graph);
  int kept = 0;
  for (const bool node : compiled.program->program().kept) kept += node;
  EXPECT_GE(kept, 1);
  for (int i = 0; i < 4; ++i) compiled.run(0);
  const cpu::Tensors before = compiled.results();
  compiled.run(0);
  EXPECT_EQ(compiled.results(), before);
  const std::vector<float> zeros(8 * 256, 0.0f);
  compiled.store->write("fc", zeros.data());
  compiled.run(0);
  EXPECT_THAT(compiled.results().at("embedding"), testing::Each(0.0f));
}

TEST_F(CudaDeviceTest, TwoProgramsWorkOnOneStore) {
  const auto training = small_program(true), evaluation = small_program(false);
  const auto expected = [&](Device& device) {
    Compiled step(device, *training);
    Compiled forward(device, *evaluation, step.store);
    std::vector<cpu::Tensors> all;
    for (int i = 0; i < 8; ++i) {
      step.run(i);
      if (i % 2 == 0) continue;
      forward.program->refresh();
      forward.run(i);
      all.push_back(forward.results());
    }
    all.push_back(step.results());
    return all;
  };
  const auto cpu_device = cpu::open_device("reference");
  const auto device = open_cuda();
  const auto there = expected(*device), here = expected(*cpu_device);
  for (std::size_t i = 0; i < here.size(); ++i) expect_close(there[i], here[i]);
}

TEST_F(CudaDeviceTest, WhatIsKeptIsDoneAnewWhenAnotherProgramUsedTheMemory) {
  const auto training = small_program(true), evaluation = small_program(false);
  const auto device = open_cuda();
  Compiled step(*device, *training);
  Compiled forward(*device, *evaluation, step.store);
  forward.run(0);
  const std::vector<float> expected = forward.results().at("embedding");
  step.write(0);
  const float rate = 0;  // the states stay
  step.program->write("rate", &rate);
  step.program->run();
  forward.run(0);
  EXPECT_EQ(forward.results().at("embedding"), expected);
}

TEST_F(CudaDeviceTest, TellsWhatAStepDidAndWhen) {
  const auto graph = small_program(true);
  const auto device = open_cuda();
  Compiled told(*device, *graph), plain(*device, *graph);
  told.write(0);
  const std::vector<TimelineEvent> events = told.program->run_with_timeline();
  plain.run(0);
  EXPECT_EQ(told.results(), plain.results());
  bool convolution = false;
  double last = 0;
  for (const TimelineEvent& event : events) {
    EXPECT_EQ(event.lane, 0);
    EXPECT_GE(event.begin, last);
    EXPECT_GE(event.end, event.begin);
    last = event.begin;
    convolution |= event.op == "conv2d";
  }
  EXPECT_TRUE(convolution);
}

// Collectives beside the kernels, among them, and on one rank's whole batch: one curve.
TEST_F(CudaDeviceTest, CollectivesBesideKernelsChangeNoBit) {
  const auto graph = small_program(true, 2);
  std::vector<cpu::Tensors> found;
  for (const bool overlap : {false, true}) {
    for (const bool capture : {false, true}) {
      found.emplace_back();
      on_ranks(2, [&](Ranks& ranks) {
        const auto device =
            open_cuda({.capture = capture, .overlap = overlap}, ranks.rank(), ranks.size());
        Compiled compiled(*device, *graph, nullptr, &ranks);
        for (int i = 0; i < 5; ++i) compiled.run(i + 10 * ranks.rank());
        cpu::Tensors results = compiled.results();
        compiled.write(7);
        const auto events = compiled.program->run_with_timeline();
        int collectives = 0, waits = 0;
        for (const TimelineEvent& event : events) {
          collectives += event.lane == 1;
          waits += event.name == "wait";
        }
        EXPECT_EQ(collectives, 4);
        EXPECT_GE(waits, 1);
        if (ranks.rank() == 0) found.back() = std::move(results);
      });
    }
  }
  for (const cpu::Tensors& results : found) EXPECT_EQ(results, found[0]);
}

TEST_F(CudaDeviceTest, AFailedCollectiveIsThrownByTheStep) {
  const auto graph = small_program(true, 2);
  on_ranks(2, [&](Ranks& ranks) {
    const auto device = open_cuda({}, ranks.rank(), ranks.size());
    Compiled compiled(*device, *graph, nullptr, &ranks);
    for (int i = 0; i < 4; ++i) compiled.run(i);
    if (ranks.rank() == 1) return ranks.abort("the disk is full");
    EXPECT_THAT(message_of<CommunicationError>([&] { compiled.run(4); }),
                HasSubstr("the disk is full"));
  });
}

// An op of the tests' own, whose kernel does what it is given.
std::function<void(cudaStream_t)> called;
Value call(Value x) {
  static const OpDef op{.name = "call", .infer = [](const Node& node) {
                          return std::vector<TensorType>{node.input(0)};
                        }};
  return x.graph().emit(op, {x}, {}, "the one that calls");
}
void add_call(CudaDevice& device) {
  struct Calling final : Kernel {
    explicit Calling(const Context& context) : stream(context.stream) {}
    void bind(std::span<void* const>, std::span<void* const>, void*) override {}
    void launch() override { called(stream); }
    cudaStream_t stream;
  };
  const_cast<KernelList&>(device.kernels())
      .add({.op = "call",
            .name = "test",
            .make = [](const Node&, const KernelEnvironment& environment) {
              return std::unique_ptr<Kernel>(std::make_unique<Calling>(context_of(environment)));
            }});
}

TEST_F(CudaDeviceTest, WhatCannotBeCapturedIsNamed) {
  Graph graph;
  graph.fetch("y", call(ops::relu(graph.input("x", {DType::f32, {8}}))));
  for (const bool capture : {true, false}) {
    const auto device = open_cuda({.capture = capture});
    add_call(*device);
    called = [](cudaStream_t stream) { cudaStreamSynchronize(stream); };
    Compiled compiled(*device, graph);
    compiled.run(0);
    compiled.run(1);
    const std::string message = message_of([&] { compiled.run(2); });
    if (capture) {
      EXPECT_THAT(message, AllOf(HasSubstr("could not be captured"),
                                 HasSubstr("'the one that calls', call by test"),
                                 HasSubstr("capture = false")));
    } else {
      EXPECT_EQ(message, "nothing of the sort was thrown");
    }
    called = [](cudaStream_t) { throw DeviceError("no descriptor fits"); };
    EXPECT_THAT(message_of([&] { compiled.run(3); }),
                AllOf(HasSubstr("'the one that calls'"), HasSubstr("no descriptor fits")));
    standin::reset();
  }
}

TEST_F(CudaDeviceTest, AKernelThatFailsOnTheGpuIsNamedWhereThatIsAskedFor) {
  const auto graph = small_program(true);
  for (const bool check : {false, true}) {
    const auto device = open_cuda({.check = check});
    Compiled compiled(*device, *graph);
    for (int i = 0; i < 3; ++i) compiled.run(i);
    float loss = 0;
    compiled.program->read("loss", &loss);
    standin::fail_next("kernel", cudaErrorIllegalAddress, 2);
    const std::string message = message_of([&] {
      compiled.run(3);
      compiled.program->read("loss", &loss);
    });
    EXPECT_THAT(message, HasSubstr("cudaErrorIllegalAddress (an illegal memory access"));
    if (check) {
      EXPECT_THAT(message, AllOf(HasSubstr("node "), HasSubstr(" by "), HasSubstr("on the GPU")));
    } else {
      EXPECT_THAT(message, AllOf(HasSubstr("running the step"), HasSubstr("check = true")));
    }
    standin::reset();
  }
}

TEST_F(CudaDeviceTest, TooLittleMemorySaysWhatWasNeeded) {
  const auto graph = small_program(true);
  const auto device = open_cuda();
  const FreeMemory before = free_memory();  // a GPU that failed in another test keeps what it had
  standin::set_hardware(standin::Hardware{.memory = before.total - before.free + 100000});
  const auto store = device->make_store();
  Program program = device->prepare(*graph, store.get(), nullptr);
  const std::size_t planned = program.plan.resident_bytes + program.plan.arena_bytes;
  try {
    device->compile(std::move(program), *store, nullptr);
    FAIL() << "it fits";
  } catch (const OutOfMemoryError& error) {
    EXPECT_GE(error.needed, planned);
    EXPECT_LT(error.needed, planned + 200000);
    EXPECT_LE(error.available, 100000u);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("has too little memory"), HasSubstr("of states"),
                                    HasSubstr("of inputs"), HasSubstr("KiB free")));
    EXPECT_EQ(error.exit_code(), ExitCode::device);
  }
  EXPECT_TRUE(store->entries().empty());
}

}  // namespace
}  // namespace ftrain::cuda
