// Every kernel of the CUDA device against the CPU's plain one, on the stand-in for a GPU: each node
// of the op table alone, between guard bytes that nobody may touch, row-major and channels-last, in
// f32 and with activations in bf16, in two orders of threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "plugins/devices/cuda/kernels.h"
#include "plugins/devices/cuda/layout.h"
#include "tests/cuda/device_payloads.h"
#include "tests/cuda/shape_cases.h"
#include "tests/cuda/standin/standin.h"
#include "tests/plugins/devices/cpu/kernel_run.h"
#include "tests/plugins/devices/cpu/lone_node.h"
#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cuda {
namespace {

using cpu::BuiltCase;
using cpu::Bytes;
using cpu::Interpreter;
using cpu::LoneNode;
using cpu::OpCase;
using cpu::Run;

const KernelList& all_kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_pointwise_kernels(made);
    add_reduction_kernels(made);
    add_update_kernels(made);
    add_normalization_kernels(made);
    add_depthwise_kernels(made);
    add_class_center_kernels(made);
    return made;
  }();
  return list;
}

// Row-major [N, C, H, W] to channels-last, or back.
template <class T>
void rearrange(const Shape& shape, const void* from, bool to_layout, void* to) {
  const std::int64_t channels = shape[1], positions = shape[2] * shape[3];
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const std::int64_t n = i / (channels * positions), c = i / positions % channels;
    const std::int64_t lies = (n * positions + i % positions) * channels + c;
    if (to_layout) {
      static_cast<T*>(to)[lies] = static_cast<const T*>(from)[i];
    } else {
      static_cast<T*>(to)[i] = static_cast<const T*>(from)[lies];
    }
  }
}

Bytes rearranged(const TensorType& type, const void* from, bool to_layout) {
  Bytes made(type.bytes(), from);
  if (type.layout == row_major) return made;
  if (type.dtype == DType::bf16) {
    rearrange<BF16>(type.shape, from, to_layout, made.data());
  } else {
    rearrange<float>(type.shape, from, to_layout, made.data());
  }
  return made;
}

// f(layout's name) with the node's types set so: row-major; images channels-last; and besides the
// weights of convolutions.
template <class F>
void each_layout(LoneNode& lone, const F& f) {
  f("row-major");
  for (const bool weights : {false, true}) {
    if (weights && lone.weight_type() == nullptr) continue;
    bool any = false;
    for (TensorType* type : lone.types()) {
      if (type->shape.rank() != 4 || (type->dtype != DType::f32 && type->dtype != DType::bf16)) {
        continue;
      }
      if (type == lone.weight_type() && !weights) continue;
      type->layout = channels_last;
      any = true;
    }
    if (any) f(weights ? "channels-last with its weight" : "channels-last");
    for (TensorType* type : lone.types()) type->layout = row_major;
  }
}

Context on(int multiprocessors) {
  Context context;
  context.multiprocessors = multiprocessors;
  return context;
}

// f(layout's name, kernel, environment) for every kernel that takes the node. With one
// multiprocessor threads go on by the whole grid, with many there are threads without work.
template <class F>
void each_kernel(LoneNode& lone, const F& f) {
  static const Context small = on(1), large = on(8);
  each_layout(lone, [&](const std::string& layout) {
    for (const KernelDef* def : all_kernels().of(lone.node().op->name)) {
      for (const Context* context : {&small, &large}) {
        KernelEnvironment environment;
        environment.device = context;
        if (def->refuse && !def->refuse(lone.node(), environment).empty()) continue;
        f(layout, *def, environment);
      }
    }
  });
}

// Runs with nobody allowed outside the buffers.
void launch(Run& run, standin::Order order) {
  standin::set({order, 1});
  std::vector<standin::Forbidden> around;
  run.each_buffer([&](const cpu::Guarded& buffer) {
    const auto* const begin = static_cast<const std::byte*>(buffer.data());
    around.emplace_back(begin - cpu::Guarded::margin, cpu::Guarded::margin);
    around.emplace_back(begin + buffer.size(), cpu::Guarded::margin);
  });
  run.launch();
}

std::vector<Bytes> contents(const Run& run) {
  std::vector<Bytes> all;
  run.each_buffer(
      [&](const cpu::Guarded& buffer) { all.emplace_back(buffer.size(), buffer.data()); });
  all.pop_back();  // the scratch
  return all;
}

void check_kernel(const LoneNode& lone, const KernelDef& def, const KernelEnvironment& environment,
                  bool in_place) {
  const double closeness = cpu::is_exact(def.op) ? 0 : 1e-5;
  Run run(lone, def, environment, in_place, rearranged);
  launch(run, standin::Order::forward);
  run.check(closeness);
  Run again(lone, def, environment, in_place, rearranged);
  launch(again, standin::Order::reverse);
  const std::vector<Bytes> first = contents(run), second = contents(again);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].words, second[i].words)
        << "buffer " << i << " depends on the order of threads";
  }
}

void check_node(LoneNode& lone) {
  each_kernel(lone, [&](const std::string& layout, const KernelDef& def,
                        const KernelEnvironment& environment) {
    SCOPED_TRACE(std::string(def.op) + " by " + std::string(def.name) + " on " +
                 std::to_string(context_of(environment).multiprocessors) + " multiprocessors, " +
                 layout + ": " + lone.node().attributes.text());
    try {
      check_kernel(lone, def, environment, false);
      if (def.make(lone.node(), environment)->overwrites() < 0) return;
      SCOPED_TRACE("in place");
      check_kernel(lone, def, environment, true);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  });
}

// f(lone node) for every node of the row; in bf16 for those with activations alone.
template <class F>
void each_node(const OpCase& row, bool bf16, const F& f) {
  const BuiltCase built(row, DType::f32);
  Interpreter interpreter(built.leaves.graph);
  built.leaves.fill(interpreter);
  interpreter.run();
  for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
    const Node& node = built.leaves.graph.node(i);
    if (node.op->leaf || node.op->collective) continue;
    if (!bf16) {
      LoneNode lone(node, interpreter);
      f(lone);
    } else if (const auto operands = cpu::taken_in_bf16(node); !operands.empty()) {
      LoneNode lone(node, interpreter, operands);
      f(lone);
    }
  }
}

class CudaOps : public testing::TestWithParam<OpCase> {
 protected:
  void SetUp() override { put_payloads_on_device(); }
  void TearDown() override { standin::set({}); }
};

TEST_P(CudaOps, KernelsAgreeWithThePlainOne) {
  each_node(GetParam(), false, check_node);
}

TEST_P(CudaOps, KernelsAgreeInBf16) {
  each_node(GetParam(), true, check_node);
}

INSTANTIATE_TEST_SUITE_P(Rows, CudaOps, testing::ValuesIn(cpu::op_cases()), cpu::test_name);
INSTANTIATE_TEST_SUITE_P(Shapes, CudaOps, testing::ValuesIn(shape_cases()), cpu::test_name);

TEST(CudaOpTable, ReachesEveryKernelAndLacksTheseOps) {
  put_payloads_on_device();
  std::set<std::string> lacking;
  std::set<std::string_view> found;
  std::set<std::pair<std::string_view, std::string_view>> reached;
  for (const OpCase& row : cpu::op_cases()) {
    for (const bool bf16 : {false, true}) {
      each_node(row, bf16, [&](LoneNode& lone) {
        lacking.emplace(lone.node().op->name);
        each_kernel(lone, [&](const std::string&, const KernelDef& def, const KernelEnvironment&) {
          found.insert(def.op);
          reached.emplace(def.op, def.name);
        });
      });
    }
  }
  for (const std::string_view op : found) lacking.erase(std::string(op));
  // Products of matrices are cuBLASLt's; the others are made by rewrites of the CPU's graphs alone.
  EXPECT_THAT(lacking, testing::ElementsAre("depthwise_block", "depthwise_block_grad", "matmul",
                                            "optimizer_update_many"));
  for (const KernelDef& def : all_kernels().all()) {
    EXPECT_TRUE(reached.contains({def.op, def.name})) << def.op << " by " << def.name;
  }
}

}  // namespace
}  // namespace ftrain::cuda
