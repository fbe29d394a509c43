// Our Winograd convolutions against the plain loops in double: every direction, instruction set and
// number of threads, for images that their tiles do not divide, between guard bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/winograd/winograd.h"
#include "tests/plugins/devices/cpu/guarded.h"
#include "tests/plugins/devices/cpu/lone_node.h"
#include "tests/plugins/devices/cpu/step.h"

namespace ftrain::cpu {
namespace {

struct Case {
  std::int64_t batch, channels, size, outputs, padding;
  std::int64_t width = size;
};

const Case cases[] = {
    {1, 16, 7, 16, 1},  {2, 32, 9, 48, 1},   {3, 16, 14, 32, 0},   {2, 64, 15, 16, 1},
    {1, 48, 28, 64, 1}, {3, 32, 7, 64, 0},   {3, 48, 9, 16, 0},    {2, 16, 15, 48, 0},
    {1, 64, 4, 64, 1},  {2, 32, 3, 16, 1},   {1, 16, 1, 32, 1},    {1, 32, 3, 32, 0},
    {1, 256, 9, 64, 1}, {2, 64, 14, 272, 1}, {2, 144, 30, 16, 1},  {1, 192, 14, 208, 2},
    {2, 16, 5, 16, 1},  {2, 16, 10, 32, 1},  {1, 32, 8, 16, 1, 7}, {2, 16, 2, 32, 1, 18}};

std::string name_of(const Case& c) {
  return std::to_string(c.batch) + "x" + std::to_string(c.channels) + "x" + std::to_string(c.size) +
         "x" + std::to_string(c.width) + "to" + std::to_string(c.outputs) + "padding" +
         std::to_string(c.padding);
}

// The three convolutions of a case, with operands of one type.
struct Convolutions {
  Convolutions(const Case& c, DType images, DType weights) {
    const ops::Conv2d options{1, c.padding, 1};
    const Shape weight{c.outputs, c.channels, 3, 3};
    const Value x = graph.input("x", {images, Shape{c.batch, c.channels, c.size, c.width}});
    const Value w = graph.state({.name = "w", .type = {weights, weight}});
    const Value y = ops::conv2d(x, w, options);
    const Value dy = graph.input("dy", y.type());
    nodes = {y, ops::conv2d_input_grad(dy, w, x.shape(), options),
             ops::conv2d_weight_grad(dy, x, weight, options)};
  }

  // Images in blocks, and the weight as Winograd's kernels take it.
  void arrange(std::int64_t block) {
    const std::string number = std::to_string(block);
    for (std::int32_t i = 0; i < graph.size(); ++i) {
      for (TensorType& type : graph.node(i).outputs) {
        const bool is_weight = type.shape[2] == 3 && type.shape[3] == 3 &&
                               (i == nodes[2].node_index() || graph.node(i).name == "w");
        type.layout = is_weight ? "ABcd" + number + "b" + number + "a" : blocked_layout(block);
      }
    }
  }

  Graph graph;
  std::vector<Value> nodes;
};

std::uint32_t seed(const Node& node, std::size_t input) {
  return seed_of(std::string(node.op->name)) + static_cast<std::uint32_t>(input);
}

// An operand's numbers, as its type holds them.
std::vector<float> operand(const Node& node, std::size_t input, DType type) {
  std::vector<float> values = noise(node.input(input).shape.elements(), seed(node, input));
  if (type == DType::bf16) {
    for (float& value : values) value = to_f32(to_bf16(value));
  }
  return values;
}

// `like`: the same node on operands of its types.
std::vector<double> expected(const Node& node, const Node& like) {
  KernelList list;
  add_reference_kernels(list);
  const KernelEnvironment environment{.threads = 1, .isa = "plain"};
  const auto kernel = list.choose(node, environment).def->make(node, environment);
  std::vector<std::vector<double>> inputs;
  std::vector<void*> addresses;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const auto values = operand(node, i, like.input(i).dtype);
    inputs.emplace_back(values.begin(), values.end());
    addresses.push_back(inputs.back().data());
  }
  std::vector<double> output(static_cast<std::size_t>(node.outputs[0].shape.elements()));
  std::vector<double> scratch(kernel->scratch_bytes() / sizeof(double) + 1);
  void* out = output.data();
  kernel->bind(addresses, {&out, 1}, scratch.data());
  kernel->launch();
  return output;
}

// Runs a kernel twice; the result in row-major order.
std::vector<float> result(const Node& node, const KernelDef& def,
                          const KernelEnvironment& environment) {
  const auto kernel = def.make(node, environment);
  std::vector<Guarded> inputs;
  std::vector<void*> addresses;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const TensorType& type = node.input(i);
    const std::vector<float> values = operand(node, i, type.dtype);
    std::vector<BF16> rounded(values.size());
    std::transform(values.begin(), values.end(), rounded.begin(), to_bf16);
    const void* const from = type.dtype == DType::bf16 ? static_cast<const void*>(rounded.data())
                                                       : static_cast<const void*>(values.data());
    inputs.emplace_back(type.bytes(), rearranged(type, from, true).data());
    addresses.push_back(inputs.back().data());
  }
  const TensorType& type = node.outputs[0];
  Guarded output(type.bytes()), scratch(kernel->scratch_bytes());
  void* out = output.data();
  kernel->bind(addresses, {&out, 1}, scratch.data());
  kernel->launch();
  const Bytes first(type.bytes(), output.data());
  kernel->launch();  // scratch holds what the first left
  EXPECT_TRUE(output.equals(first.data())) << "other bits the second time";
  EXPECT_TRUE(output.intact()) << "guards of the output";
  EXPECT_TRUE(scratch.intact()) << "guards of the scratch";
  for (const Guarded& input : inputs) EXPECT_TRUE(input.intact()) << "guards of an input";
  const Bytes plain = rearranged(type, output.data(), false);
  std::vector<float> values(static_cast<std::size_t>(type.shape.elements()));
  if (type.dtype == DType::bf16) {
    const auto* const numbers = static_cast<const BF16*>(plain.data());
    std::transform(numbers, numbers + values.size(), values.begin(),
                   [](BF16 x) { return to_f32(x); });
  } else {
    std::memcpy(values.data(), plain.data(), plain.size);
  }
  return values;
}

double distance_of(const std::vector<float>& found, const std::vector<double>& wanted) {
  double most = 0, difference = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    most = std::max(most, std::abs(wanted[i]));
    difference = std::max(difference, std::abs(wanted[i] - static_cast<double>(found[i])));
    if (std::isnan(found[i])) return 1e30;
  }
  return difference / most;
}

// Of the largest element; direct sums stay below 1e-6 here. Half a step of bf16 where that is the
// result's type.
double closeness_of(const TensorType& type) {
  return type.dtype == DType::bf16 ? 1.0 / 256 : 1e-5;
}

class Winograd : public testing::TestWithParam<std::tuple<Case, DType>> {};

TEST_P(Winograd, AgreesWithPlainLoopsInDouble) {
  const auto& [shape, images] = GetParam();
  KernelList list;
  add_winograd_kernels(list);
  const KernelOptions options{.winograd = true};
  Convolutions exact(shape, DType::f64, DType::f64);
  for (std::size_t k = 0; k < exact.nodes.size(); ++k) {
    std::vector<double> wanted;
    int compared = 0;
    for (const std::string isa : {"plain", "avx2", "avx512"}) {
      Convolutions convolutions(shape, images, DType::f32);
      convolutions.arrange(preferred_block(isa));
      const Node& node = convolutions.graph.node(convolutions.nodes[k].node_index());
      if (wanted.empty()) wanted = expected(exact.graph.node(exact.nodes[k].node_index()), node);
      std::vector<float> alone;
      for (const int threads : {1, 2, 5}) {
        const KernelEnvironment environment{.threads = threads, .isa = isa, .device = &options};
        for (const KernelDef* def : list.candidates(node, environment)) {
          SCOPED_TRACE(std::string(node.op->name) + " for " + isa + ", " + std::to_string(threads) +
                       " threads");
          const std::vector<float> found = result(node, *def, environment);
          EXPECT_LT(distance_of(found, wanted), closeness_of(node.outputs[0]));
          if (threads == 1) alone = found;
          EXPECT_EQ(found, alone) << "depends on the number of threads";
          ++compared;
        }
      }
    }
    EXPECT_GE(compared, 3);  // the plain instructions are everywhere
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Winograd,
                         testing::Combine(testing::ValuesIn(cases),
                                          testing::Values(DType::f32, DType::bf16)),
                         [](const auto& info) {
                           return name_of(std::get<0>(info.param)) +
                                  std::string(ftrain::name_of(std::get<1>(info.param)));
                         });

TEST(WinogradRefusals, SayWhy) {
  KernelList list;
  add_winograd_kernels(list);
  Convolutions convolutions({1, 16, 8, 16, 1}, DType::f32, DType::f32);
  const Node& node = convolutions.graph.node(convolutions.nodes[0].node_index());
  const auto reason = [&](bool winograd) {
    const KernelOptions options{.winograd = winograd};
    const KernelEnvironment environment{.threads = 1, .isa = "plain", .device = &options};
    std::string reasons;
    for (const KernelDef* def : list.of("conv2d")) reasons += def->refuse(node, environment) + "\n";
    return reasons;
  };
  EXPECT_NE(reason(false).find("switched off"), std::string::npos);
  EXPECT_NE(reason(true).find("blocks of 8 channels"), std::string::npos);
  convolutions.arrange(8);
  EXPECT_EQ(reason(true).substr(0, 1), "\n");
}

}  // namespace
}  // namespace ftrain::cpu
