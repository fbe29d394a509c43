// Ops and kernels that the device knows nothing of: decompositions, kernels of plugins, and that
// each kernel is made once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ftrain/base/error.h"
#include "ftrain/graph/opdef.h"
#include "step.h"

namespace ftrain::cpu {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::vector<TensorType> like_first(const Node& node) {
  return {node.input(0)};
}

// 3 x, made of what the device has.
const OpDef thrice{
    .name = "thrice", .infer = like_first, .decomposition = [](Graph&, const Node& node) {
      const Value x = node.inputs[0];
      return std::vector<Value>{ops::add(ops::add(x, x), x)};
    }};
// 9 x, made of what it has not.
const OpDef nine_times{
    .name = "nine_times", .infer = like_first, .decomposition = [](Graph& graph, const Node& node) {
      const Value x = graph.emit(thrice, {node.inputs[0]});
      return std::vector<Value>{graph.emit(thrice, {x})};
    }};
const OpDef endless{
    .name = "endless", .infer = like_first, .decomposition = [](Graph& graph, const Node& node) {
      return std::vector<Value>{graph.emit(*node.op, {node.inputs[0]})};
    }};
const OpDef wrong{
    .name = "wrong", .infer = like_first, .decomposition = [](Graph&, const Node& node) {
      return std::vector<Value>{ops::sum_rows(node.inputs[0])};
    }};

int made = 0;

class Tripling final : public Kernel {
 public:
  explicit Tripling(std::int64_t elements) : elements_(elements) { ++made; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    x_ = static_cast<const float*>(inputs[0]);
    y_ = static_cast<float*>(outputs[0]);
  }
  void launch() override {
    for (std::int64_t i = 0; i < elements_; ++i) y_[i] = 3 * x_[i];
  }

 private:
  const std::int64_t elements_;
  const float* x_ = nullptr;
  float* y_ = nullptr;
};

std::unique_ptr<Kernel> make_tripling(const Node& node, const KernelEnvironment&) {
  return std::make_unique<Tripling>(node.outputs[0].shape.elements());
}

std::string refuse_all(const Node&, const KernelEnvironment&) {
  return "is not in the mood";
}

// y = op(relu(x)) of [4, 8].
void build(Graph& graph, const OpDef& op) {
  const Value x = graph.input("x", {DType::f32, Shape{4, 8}});
  graph.fetch("y", graph.emit(op, {ops::relu(x)}, {}, "layer7"));
  graph.fetch("x", ops::relu(x));
}

std::vector<float> times(float factor, const std::vector<float>& x) {
  std::vector<float> y;
  for (const float value : x) y.push_back(factor * value);
  return y;
}

std::string message_of(CpuDevice& device, const OpDef& op) {
  Graph graph;
  build(graph, op);
  try {
    device.prepare(graph, nullptr, nullptr);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "no DeviceError";
}

TEST(PluginKernels, AnOpWithoutOneRunsByItsDecomposition) {
  for (const char* kernels : {"auto", "reference"}) {
    SCOPED_TRACE(kernels);
    Graph graph;
    build(graph, nine_times);
    std::string text;
    Tensors found = run_steps(*open_device(kernels), graph, 1, &text);
    const std::vector<float> wanted = times(9, found.at("x"));
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_FLOAT_EQ(found.at("y")[i], wanted[i]) << i;
    }
    EXPECT_THAT(
        text,
        AllOf(HasSubstr("nine_times 'layer7': by its decomposition; the device has no"),
              HasSubstr("thrice 'layer7': by its decomposition"), HasSubstr("add 'layer7': ")));
  }
}

TEST(PluginKernels, AnOpThatAllRefuseRunsByItsDecomposition) {
  const auto device = open_device();
  device->add_kernel(
      {.op = "thrice", .name = "moody", .refuse = refuse_all, .make = make_tripling});
  // In channel blocks, as what is around convolutions is.
  Graph graph;
  const Value x = graph.input("x", {DType::f32, Shape{2, 16, 8, 8}});
  const Value w = graph.state({.name = "w", .type = {DType::f32, Shape{16, 16, 3, 3}}});
  const ops::Conv2d options{.padding = 1};
  Value y = ops::conv2d(x, w, options);
  graph.fetch("before", y);
  y = graph.emit(thrice, {y}, {}, "layer7");
  graph.fetch("between", y);
  graph.fetch("after", ops::conv2d(y, w, options));
  made = 0;
  std::string text;
  const Tensors found = run_steps(*device, graph, 1, &text);
  const std::vector<float> wanted = times(3, found.at("before"));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_FLOAT_EQ(found.at("between")[i], wanted[i]) << i;
  }
  EXPECT_THAT(text, HasSubstr("thrice 'layer7': by its decomposition; not moody: is not in the"));
  EXPECT_EQ(made, 0);
}

TEST(PluginKernels, GoBeforeTheDecompositionAndAreMadeOnce) {
  const auto device = open_device();
  device->add_kernel({.op = "thrice", .name = "moody", .priority = 9, .refuse = refuse_all});
  device->add_kernel({.op = "thrice", .name = "tripling", .make = make_tripling});
  Graph graph;
  build(graph, thrice);
  made = 0;
  std::string text;
  const Tensors found = run_steps(*device, graph, 2, &text);
  EXPECT_EQ(found.at("y"), times(3, found.at("x")));
  EXPECT_THAT(text, AllOf(HasSubstr("thrice 'layer7': tripling; not moody: is not in the mood"),
                          Not(HasSubstr("decomposition"))));
  EXPECT_EQ(made, 1);
}

TEST(PluginKernels, CompeteWithTheDevicesOwnByPriority) {
  const KernelDef lower{.op = "relu", .name = "lower", .priority = -1, .make = make_tripling};
  const KernelDef higher{.op = "relu", .name = "higher", .priority = 99, .make = make_tripling};
  Graph graph;
  graph.fetch("y", ops::relu(graph.input("x", {DType::f32, Shape{4, 8}})));
  std::string text;
  const auto device = open_device();
  device->add_kernel(lower);
  run_steps(*device, graph, 1, &text);
  EXPECT_THAT(text, Not(HasSubstr("lower")));
  device->add_kernel(higher);
  run_steps(*device, graph, 1, &text);
  EXPECT_THAT(text, HasSubstr("relu: higher"));
  const auto reference = open_device("reference");  // of ops that it has it takes its own
  reference->add_kernel(higher);
  run_steps(*reference, graph, 1, &text);
  EXPECT_THAT(text, Not(HasSubstr("higher")));
}

TEST(PluginKernels, ADecompositionThatIsNoneIsRefused) {
  const auto device = open_device();
  EXPECT_THAT(message_of(*device, endless),
              AllOf(HasSubstr("'endless' at 'layer7'"), HasSubstr("leads back to itself")));
  EXPECT_THAT(message_of(*device, wrong),
              AllOf(HasSubstr("'wrong' at 'layer7'"), HasSubstr("f32[8]"), HasSubstr("f32[4, 8]")));
}

}  // namespace
}  // namespace ftrain::cpu
