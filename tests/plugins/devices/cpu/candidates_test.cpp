// Every kernel that a convolution of the networks' shapes may be given, against sums in f64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/tune/measure.h"
#include "step.h"

namespace ftrain::cpu {
namespace {

// One of each family that IResNet and MobileFaceNet have, with fewer channels and positions.
struct Family {
  const char* name;
  std::int64_t channels, size, outputs, kernel;
  ops::Conv2d options;
};

const Family families[] = {
    {"image", 3, 20, 32, 3, {1, 1, 1}},       {"image_halved", 3, 20, 32, 3, {2, 1, 1}},
    {"same", 32, 28, 32, 3, {1, 1, 1}},       {"same_14", 64, 14, 64, 3, {1, 1, 1}},
    {"same_7", 128, 7, 128, 3, {1, 1, 1}},    {"wider", 32, 14, 64, 3, {1, 1, 1}},
    {"halved", 32, 28, 32, 3, {2, 1, 1}},     {"halved_14", 64, 14, 64, 3, {2, 1, 1}},
    {"shortcut", 32, 28, 64, 1, {2, 0, 1}},   {"pointwise", 64, 14, 128, 1, {1, 0, 1}},
    {"depthwise", 32, 14, 32, 3, {1, 1, 32}}, {"depthwise_halved", 32, 14, 32, 3, {2, 1, 32}},
    {"whole", 64, 7, 64, 7, {1, 0, 64}},
};

constexpr std::int64_t batch = 3;

// Row-major: x [N, C, H, H], w [K, C/g, R, R], y [N, K, P, P]. Calls f(x's, w's, y's place) for
// every product.
template <class F>
void each_product(const ConvolutionTypes& t, const F& f) {
  const Shape &x = t.x.shape, &w = t.weight.shape, &y = t.y.shape;
  const std::int64_t outputs = w[0] / t.groups;
  for (std::int64_t n = 0; n < y[0]; ++n) {
    for (std::int64_t k = 0; k < y[1]; ++k) {
      for (std::int64_t p = 0; p < y[2] * y[3]; ++p) {
        const std::int64_t row = p / y[3] * t.stride - t.padding;
        const std::int64_t column = p % y[3] * t.stride - t.padding;
        for (std::int64_t c = 0; c < w[1]; ++c) {
          for (std::int64_t q = 0; q < w[2] * w[3]; ++q) {
            const std::int64_t i = row + q / w[3], j = column + q % w[3];
            if (i < 0 || i >= x[2] || j < 0 || j >= x[3]) continue;
            const std::int64_t channel = k / outputs * w[1] + c;
            f(((n * x[1] + channel) * x[2] + i) * x[3] + j, (k * w[1] + c) * w[2] * w[3] + q,
              (n * y[1] + k) * y[2] * y[3] + p);
          }
        }
      }
    }
  }
}

std::vector<double> sums(const Node& node, const std::vector<float>& first,
                         const std::vector<float>& second) {
  std::vector<double> sum(static_cast<std::size_t>(node.outputs[0].shape.elements()), 0.0);
  const auto add = [&](std::int64_t a, std::int64_t b, std::int64_t to) {
    sum[static_cast<std::size_t>(to)] += static_cast<double>(first[static_cast<std::size_t>(a)]) *
                                         static_cast<double>(second[static_cast<std::size_t>(b)]);
  };
  const std::string_view op = node.op->name;
  each_product(convolution_types(node), [&](std::int64_t x, std::int64_t w, std::int64_t y) {
    if (op == "conv2d") add(x, w, y);
    if (op == "conv2d_input_grad") add(y, w, x);
    if (op == "conv2d_weight_grad") add(y, x, w);
  });
  return sum;
}

// The kernel's result, row-major. Operands lie as the node says.
std::vector<float> run(const KernelDef& def, const Node& node, const KernelEnvironment& environment,
                       const std::vector<float>& first, const std::vector<float>& second) {
  const auto kernel = def.make(node, environment);
  Memory a(node.input(0).bytes(), "a"), b(node.input(1).bytes(), "b");
  Memory out(node.outputs[0].bytes(), "out"), scratch(kernel->scratch_bytes() + 1, "scratch");
  copy_from_row_major(node.input(0), first.data(), a.data());
  copy_from_row_major(node.input(1), second.data(), b.data());
  void* const inputs[] = {a.data(), b.data()};
  void* const outputs[] = {out.data()};
  kernel->bind(inputs, outputs, scratch.data());
  kernel->launch();
  std::vector<float> result(static_cast<std::size_t>(node.outputs[0].shape.elements()));
  copy_to_row_major(node.outputs[0], out.data(), result.data());
  return result;
}

class Candidates : public testing::TestWithParam<Family> {};

// Of the largest sum: a plain or blocked sum in f32 stays within 2e-6; Winograd's F(4x4, 3x3),
// whose transforms multiply by up to 8 and cancel again, within 4e-5.
TEST_P(Candidates, AreAsExactAsTheySay) {
  const Family& family = GetParam();
  Graph graph;
  const Shape weight{family.outputs, family.channels / family.options.groups, family.kernel,
                     family.kernel};
  const Value x =
      graph.input("x", {DType::f32, Shape{batch, family.channels, family.size, family.size}});
  const Value w = graph.state({.name = "w", .type = {DType::f32, weight}});
  const Value y = ops::conv2d(x, w, family.options);
  const Value dy = graph.input("dy", y.type());
  graph.fetch("y", y);
  graph.fetch("dx", ops::conv2d_input_grad(dy, w, x.shape(), family.options));
  graph.fetch("dw", ops::conv2d_weight_grad(dy, x, weight, family.options));

  const auto device = open_device();
  const Program program = device->prepare(graph, nullptr, nullptr);
  const KernelEnvironment environment = device->environment(nullptr);
  int directions = 0;
  for (std::int32_t n = 0; n < program.graph->size(); ++n) {
    const Node& node = program.graph->node(n);
    if (!node.op->name.starts_with("conv2d")) continue;
    ++directions;
    const std::vector<float> first = noise(node.input(0).shape.elements(), 11);
    const std::vector<float> second = noise(node.input(1).shape.elements(), 12);
    const std::vector<double> expected = sums(node, first, second);
    double largest = 0;
    for (const double sum : expected) largest = std::max(largest, std::abs(sum));
    int tried = 0;
    for (const KernelDef* def : device->kernels().candidates(node, environment)) {
      const std::vector<float> found = run(*def, node, environment, first, second);
      double error = 0;
      for (std::size_t i = 0; i < found.size(); ++i) {
        error = std::max(error, std::abs(static_cast<double>(found[i]) - expected[i]));
      }
      EXPECT_LT(error / largest, def->coarse ? 4e-5 : 2e-6) << node.op->name << " by " << def->name;
      ++tried;
    }
    EXPECT_GE(tried, 1) << node.op->name;
  }
  EXPECT_EQ(directions, 3);
}

INSTANTIATE_TEST_SUITE_P(Families, Candidates, testing::ValuesIn(families),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ftrain::cpu
