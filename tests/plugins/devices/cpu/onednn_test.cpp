// oneDNN's kernels against the plain ones: as the device runs them (in blocks), and each alone on
// row-major operands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/onednn/kernels.h"
#include "step.h"

namespace ftrain::cpu {
namespace {

using testing::HasSubstr;

struct Case {
  const char* name;
  std::int64_t batch, channels, size, outputs, kernel;
  ops::Conv2d options;
  const char* kernel_name;
};

const Case cases[] = {
    {"image", 2, 3, 12, 32, 3, {1, 1, 1}, "onednn direct"},
    {"square", 3, 32, 10, 32, 3, {1, 1, 1}, "3x3"},
    {"stride", 2, 32, 11, 64, 3, {2, 1, 1}, "onednn direct"},
    {"shortcut", 2, 32, 8, 64, 1, {2, 0, 1}, "onednn direct"},
    {"pointwise", 2, 64, 7, 32, 1, {1, 0, 1}, "onednn direct"},
    {"large", 3, 48, 30, 64, 3, {1, 1, 1}, "3x3"},
    {"odd", 2, 5, 9, 7, 3, {1, 1, 1}, "onednn direct"},
    {"eights", 2, 24, 9, 40, 3, {1, 1, 1}, "onednn direct"},
    {"to_odd", 2, 32, 9, 10, 3, {1, 1, 1}, "onednn direct"},
    {"depthwise", 2, 32, 9, 32, 3, {1, 1, 32}, "depthwise"},
    {"depthwise_stride", 2, 32, 9, 32, 3, {2, 1, 32}, "depthwise"},
    {"depthwise_whole", 2, 32, 7, 32, 7, {1, 0, 32}, "onednn direct"},
    {"pairs", 2, 32, 9, 32, 3, {1, 1, 16}, "depthwise"},
    {"fours_stride", 2, 32, 9, 32, 3, {2, 1, 8}, "onednn widened groups"},
    {"wide_groups", 2, 64, 9, 64, 3, {1, 1, 2}, "onednn direct"},
};

void build(Graph& graph, const Case& c) {
  const Shape weight{c.outputs, c.channels / c.options.groups, c.kernel, c.kernel};
  const Value x = graph.input("x", {DType::f32, Shape{c.batch, c.channels, c.size, c.size}});
  const Value w = graph.state({.name = "w", .type = {DType::f32, weight}});
  const Value y = ops::conv2d(x, w, c.options);
  const Value dy = graph.input("dy", y.type());
  graph.fetch("y", y);
  graph.fetch("dx", ops::conv2d_input_grad(dy, w, x.shape(), c.options));
  graph.fetch("dw", ops::conv2d_weight_grad(dy, x, weight, c.options));
}

// Winograd's method wants the weights in blocks, as oneDNN likes them with vectors of 8 or more.
std::string square_kernel() {
  return best_isa() == "plain" ? "onednn direct" : "winograd";
}

// Winograd's method rounds more coarsely than a direct sum.
double tolerance(const std::string& kernels) {
  return kernels.find("winograd") != std::string::npos ? 4e-5 : 1e-5;
}

class Convolutions : public testing::TestWithParam<Case> {};

TEST_P(Convolutions, AgreeWithPlainLoopsInBlocks) {
  Graph graph;
  build(graph, GetParam());
  std::string kernels;
  Tensors fast = run_steps(*open_device(), graph, 1, &kernels);
  Tensors plain = run_steps(*open_device("reference"), graph);
  const std::string wanted =
      std::string(GetParam().kernel_name) == "3x3" ? square_kernel() : GetParam().kernel_name;
  EXPECT_THAT(kernels, HasSubstr("conv2d: " + wanted));
  for (const char* name : {"y", "dx", "dw"}) {
    EXPECT_LT(distance(fast[name], plain[name]), tolerance(wanted)) << name << "\n" << kernels;
  }
}

// Every kernel of a node that takes row-major operands, with all its neighbours' bytes watched.
TEST_P(Convolutions, AgreeWithPlainLoopsRowMajor) {
  Graph graph;
  build(graph, GetParam());
  const auto device = open_device();
  const KernelOptions options{.winograd = true};
  const KernelEnvironment environment{.threads = 2, .isa = best_isa(), .device = &options};
  int compared = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.inputs.empty()) continue;
    std::vector<std::vector<float>> inputs;
    std::vector<void*> addresses;
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      inputs.push_back(noise(node.input(k).shape.elements(), static_cast<std::uint32_t>(k)));
    }
    for (auto& input : inputs) addresses.push_back(input.data());
    const auto run = [&](const KernelDef& def) {
      const auto kernel = def.make(node, environment);
      std::vector<float> output(static_cast<std::size_t>(node.outputs[0].shape.elements()));
      std::vector<char> scratch(kernel->scratch_bytes() + 64);
      void* aligned = scratch.data();
      std::size_t space = scratch.size();
      std::align(64, kernel->scratch_bytes(), aligned, space);
      void* out = output.data();
      kernel->bind(addresses, {&out, 1}, aligned);
      kernel->launch();
      kernel->launch();  // scratch holds what the first left
      return output;
    };
    const auto defs = device->kernels().of(node.op->name);
    const std::vector<float> plain = run(*defs.back());
    for (const KernelDef* def : defs) {
      if (def == defs.back() || !def->refuse(node, environment).empty()) continue;
      EXPECT_LT(distance(run(*def), plain), tolerance(std::string(def->name)))
          << node.op->name << " by " << def->name;
      ++compared;
    }
  }
  EXPECT_GE(compared, 3);
}

INSTANTIATE_TEST_SUITE_P(All, Convolutions, testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Products, AgreeWithPlainLoops) {
  Graph graph;
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const std::string name = std::string(ta ? "t" : "n") + (tb ? "t" : "n");
      const Value a = graph.input("a" + name, {DType::f32, ta ? Shape{33, 18} : Shape{18, 33}});
      const Value b = graph.input("b" + name, {DType::f32, tb ? Shape{70, 33} : Shape{33, 70}});
      graph.fetch(name, ops::matmul(a, b, ta, tb));
    }
  }
  std::string kernels;
  Tensors fast = run_steps(*open_device(), graph, 1, &kernels);
  Tensors plain = run_steps(*open_device("reference"), graph);
  EXPECT_THAT(kernels, HasSubstr("matmul: onednn"));
  for (const auto& [name, values] : plain) EXPECT_LT(distance(fast[name], values), 2e-6) << name;
}

// The instruction set is a limit on the process, so each runs in one of its own.
void compare_with_isa(const std::string& isa) {
  for (const Case& c : cases) {
    Graph graph;
    build(graph, c);
    Tensors fast = run_steps(*open_device("auto", isa), graph);
    Tensors plain = run_steps(*open_device("reference", isa), graph);
    for (const char* name : {"y", "dx", "dw"}) {
      if (!(distance(fast[name], plain[name]) < 4e-5)) {
        std::fprintf(stderr, "%s of %s is off\n", name, c.name);
        std::exit(1);
      }
    }
  }
  std::exit(0);
}

TEST(ConvolutionsDeathTest, AgreeWithEveryInstructionSet) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(compare_with_isa("plain"), testing::ExitedWithCode(0), "");
  if (best_isa() != "plain") {
    EXPECT_EXIT(compare_with_isa("avx2"), testing::ExitedWithCode(0), "");
  }
}

}  // namespace
}  // namespace ftrain::cpu
