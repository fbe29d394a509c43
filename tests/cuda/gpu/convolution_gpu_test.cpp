// Dense convolutions by every kernel on a real GPU against the CPU's plain loops; captured and
// replayed; by plans that were measured, kept and repeated.
#include <gtest/gtest.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "ftrain/ops.h"
#include "gpu_fixture.h"

namespace ftrain::cuda {
namespace {

struct Case {
  std::int64_t batch, channels, size, kernels, window, stride, padding;
};

// The three directions in a graph, with contents.
struct Convolution {
  explicit Convolution(const Case& of) {
    const ops::Conv2d options{.stride = of.stride, .padding = of.padding};
    const Value x = graph.input("x", {DType::f32, {of.batch, of.channels, of.size, of.size}});
    const Value w = graph.input("w", {DType::f32, {of.kernels, of.channels, of.window, of.window}});
    const Value y = ops::conv2d(x, w, options);
    const Value dy = graph.input("dy", {DType::f32, y.shape()});
    nodes = {y, ops::conv2d_input_grad(dy, w, x.shape(), options),
             ops::conv2d_weight_grad(dy, x, w.shape(), options)};
    leaves = {x, w, dy};
  }
  void fill(cpu::Interpreter& interpreter) const {
    std::uint32_t random = 99;
    for (const Value& leaf : leaves) {
      for (float& value : interpreter.data<float>(leaf)) {
        random = random * 1664525u + 1013904223u;
        value = static_cast<float>(random >> 8) / 8388608.0f - 1.0f;
      }
    }
  }

  Graph graph;
  std::vector<Value> nodes, leaves;
};

const KernelDef& cudnn_kernel(std::string_view op) {
  for (const KernelDef* def : gpu_kernels().of(op)) {
    if (def->name == "cudnn") return *def;
  }
  throw std::logic_error("there is no such kernel");
}

void lay_channels_last(cpu::LoneNode& lone) {
  for (TensorType* type : lone.types()) type->layout = channels_last;
}

// f(lone node) for the three directions, with activations and weights in the precision.
template <class F>
void each_direction(const Case& of, const GpuPrecision& precision, const F& f) {
  const Convolution convolution(of);
  cpu::Interpreter interpreter(convolution.graph);
  convolution.fill(interpreter);
  const std::vector<std::size_t> narrow =
      precision.dtype == DType::f32 ? std::vector<std::size_t>{} : std::vector<std::size_t>{0, 1};
  for (const Value& value : convolution.nodes) {
    cpu::LoneNode lone(value.node(), interpreter, narrow, precision.dtype);
    SCOPED_TRACE(std::string(precision.name) + ": " + std::string(value.node().op->name) + " " +
                 value.node().attributes.text() + " of " + value.node().input(0).text());
    f(lone);
  }
}

const Case small_cases[] = {
    {2, 64, 14, 64, 3, 1, 1},  {2, 3, 16, 64, 3, 1, 1},   {4, 64, 14, 128, 3, 2, 1},
    {4, 64, 14, 128, 1, 2, 0}, {2, 128, 7, 512, 1, 1, 0}, {3, 8, 9, 16, 3, 2, 1},
    {1, 24, 5, 40, 3, 1, 0},   {2, 16, 8, 8, 5, 1, 2},    {2, 3, 15, 12, 3, 2, 1}};

class GpuConvolutions : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !gpu_machine(false).cudnn) GTEST_SKIP() << "built without cuDNN";
  }
};

TEST_F(GpuConvolutions, AgreeWithThePlainLoops) {
  for (const Case& of : small_cases) {
    for (const GpuPrecision& precision : gpu_precisions) {
      const Machine& machine = gpu_machine(precision.tf32);
      each_direction(of, precision, [&](cpu::LoneNode& lone) {
        bool by_cudnn = false;
        each_gpu_kernel(lone, machine, [&](const KernelDef& def) {
          by_cudnn = by_cudnn || def.name == "cudnn";
          check_on_gpu(lone, def, machine, precision.closeness);
        });
        lay_channels_last(lone);
        const KernelDef& def = cudnn_kernel(lone.node().op->name);
        EXPECT_TRUE(by_cudnn) << def.refuse(lone.node(), environment_of(machine));
      });
    }
  }
}

// A replayed capture does what the launch did.
TEST_F(GpuConvolutions, CanBeCaptured) {
  for (const GpuPrecision& precision : gpu_precisions) {
    const Machine& machine = gpu_machine(precision.tf32);
    each_direction(small_cases[0], precision, [&](cpu::LoneNode& lone) {
      lay_channels_last(lone);
      const KernelDef& def = cudnn_kernel(lone.node().op->name);
      GpuRun plain(lone, def, machine, false), captured(lone, def, machine, false);
      plain.launch();
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t ready = nullptr;
      const cudaStream_t stream = machine.training.stream;
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
      captured.enqueue();
      check(cudaStreamEndCapture(stream, &graph), "capturing");
      check(cudaGraphInstantiate(&ready, graph, 0), "capturing");
      check(cudaGraphLaunch(ready, stream), "replaying");
      finish(stream, "replaying");
      EXPECT_TRUE(captured.output(0).equals(plain.output(0).data()));
      check(cudaGraphExecDestroy(ready), "capturing");
      check(cudaGraphDestroy(graph), "capturing");
    });
  }
}

// Measured plans are right ones, are found again in the file, and give the same bits.
TEST_F(GpuConvolutions, AreMeasuredOnceAndRepeated) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "cudnn_gpu_test";
  std::filesystem::remove_all(folder);
  const Machine& shared = gpu_machine(false);
  const CudnnOptions options{.gpu = shared.gpu.name,
                             .driver = shared.gpu.driver,
                             .autotune = true,
                             .file = folder / "plans.json"};
  const auto measuring = open_cudnn(options), reading = open_cudnn(options),
             repeating = open_cudnn(
                 {.gpu = options.gpu, .driver = options.driver, .autotune = false, .file = {}});
  const GpuPrecision& bf16 = gpu_precisions[2];
  each_direction({4, 64, 28, 64, 3, 1, 1}, bf16, [&](cpu::LoneNode& lone) {
    lay_channels_last(lone);
    const KernelDef& def = cudnn_kernel(lone.node().op->name);
    std::vector<cpu::Guarded> results;
    for (const auto* library : {&measuring, &reading, &repeating}) {
      if (library == &repeating) repeating->repeat(measuring->choices());
      Machine machine(find_gpu(-1, 0, 1), {});
      machine.training.cudnn = library->get();
      GpuRun run(lone, def, machine, false);
      run.launch();
      run.check_against_plain(bf16.closeness);
      results.push_back(run.output(0));
    }
    EXPECT_TRUE(results[1].equals(results[0].data()));
    EXPECT_TRUE(results[2].equals(results[0].data()));
  });
  EXPECT_TRUE(std::filesystem::exists(options.file));
  EXPECT_EQ(reading->choices(), measuring->choices());
  EXPECT_EQ(repeating->choices(), measuring->choices());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ftrain::cuda
