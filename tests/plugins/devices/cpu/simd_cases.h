// What the tests of the Highway kernels share: an op on operands of one shape, done by its Highway
// kernel or by plain loops.
#pragma once

#include <gtest/gtest.h>

#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/graph_runner.h"
#include "plugins/devices/cpu/simd/dispatch.h"

namespace ftrain::cpu {

inline const KernelList& kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_reference_kernels(made);
    add_simd_kernels(made);
    return made;
  }();
  return list;
}

// What a case is built from: x and its like are `image`, per-channel ones [C] or [groups, C].
struct Operands {
  Graph& graph;
  TensorType image;
  std::int64_t groups;
  std::vector<Value> inputs = {};

  Value like_x(const char* name) { return add(name, image); }
  Value channels(const char* name) { return add(name, {DType::f32, Shape{image.shape[1]}}); }
  Value grouped(const char* name) { return add(name, {DType::f32, Shape{groups, image.shape[1]}}); }
  Value scalar(const char* name) { return add(name, {DType::f32, Shape{}}); }
  ops::Moments moments() { return {grouped("mean"), grouped("variance")}; }
  ops::Moments fixed() { return {channels("mean"), channels("variance")}; }
  ops::Affine affine() { return {channels("gamma"), channels("beta")}; }
  Value add(const char* name, const TensorType& type) {
    inputs.push_back(graph.input(name, type));
    return inputs.back();
  }
};

struct Case {
  const char* name;
  void (*emit)(Operands& o);
  bool images_only = false;
};

inline std::vector<float> values_for(Value input, std::uint32_t seed) {
  auto values = random_values(static_cast<std::size_t>(input.shape().elements()), seed);
  if (input.node().name == "variance") {
    for (float& value : values) value = 0.5f + value * value;
  }
  return values;
}

struct HowToRun {
  bool in_place = false;
  bool round = false;  // operands like x to bf16
};

// The outputs of the node that `emit` emits. `kernel` is "plain" (of the decomposition, for a fused
// op) or "simd".
inline std::vector<std::vector<float>> outputs_of(void (*emit)(Operands&), const TensorType& image,
                                                  std::int64_t groups, const std::string& kernel,
                                                  const KernelEnvironment& environment,
                                                  const HowToRun& how = {}) {
  Graph graph;
  Operands operands{graph, image, groups};
  emit(operands);
  const Node& node = graph.node(graph.size() - 1);
  std::vector<Value> results;
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    results.push_back({&graph, node.index, static_cast<std::int32_t>(i)});
  }
  if (kernel == "plain" && node.op->decomposition) results = node.op->decomposition(graph, node);
  GraphRunner runner(graph, kernels(), environment, kernel);
  if (kernel == "plain") runner.skip = [](const Node& n) { return n.op->decomposition != nullptr; };
  std::uint32_t seed = 1;
  for (const Value& input : operands.inputs) {
    auto values = values_for(input, seed++);
    if (how.round && input.shape() == image.shape) {
      for (float& value : values) value = to_f32(to_bf16(value));
    }
    runner.set(input, values);
  }
  runner.run(how.in_place);
  std::vector<std::vector<float>> outputs;
  for (const Value& result : results) outputs.push_back(runner.get(result));
  return outputs;
}

struct Layout {
  Shape shape;
  std::string layout;
};

inline const Layout layouts[] = {
    {{4, 32, 7, 5}, "aBcd8b"},
    {{4, 32, 7, 5}, "aBcd16b"},
    {{2, 16, 23, 19}, "aBcd8b"},
    {{2, 48, 1, 3}, "aBcd16b"},
    {{2, 16, 23, 19}, "aBcd16b"},
    {{8, 32}, ""},
    {{6, 24}, ""},
    {{600, 8}, ""},
};

// A job's isa, or "scalar": the target for machines without any SIMD that we know.
class SimdTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string target = GetParam();
#if HWY_ARCH_X86
    const auto has = [](std::int64_t bit) { return (hwy::SupportedTargets() & bit) != 0; };
    if ((target == "avx512" && !has(HWY_AVX3)) || (target == "avx2" && !has(HWY_AVX2))) {
      GTEST_SKIP() << "this machine has no " << target;
    }
#endif
    if (target == "scalar") hwy::SetSupportedTargetsForTest(HWY_SCALAR);
    environment.isa = target == "scalar" ? "plain" : target;
    environment.threads = 2;
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
  }

  KernelEnvironment environment;
};

}  // namespace ftrain::cpu
