// Every kernel of the CUDA device against the CPU's plain one, on the stand-in for a GPU: each node
// of the op table alone, between guard bytes that nobody may touch, row-major and channels-last, in
// f32 and with activations in bf16 and f16, in two orders of threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "tests/cuda/device_payloads.h"
#include "tests/cuda/node_cases.h"
#include "tests/cuda/shape_cases.h"
#include "tests/cuda/standin/standin.h"
#include "tests/plugins/devices/cpu/kernel_run.h"
#include "tests/plugins/devices/cpu/lone_node.h"
#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cuda {
namespace {

using cpu::Bytes;
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
    add_product_kernels(made);
    return made;
  }();
  return list;
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

class CudaOps : public testing::TestWithParam<OpCase> {
 protected:
  void SetUp() override { put_payloads_on_device(); }
  void TearDown() override { standin::set({}); }
};

TEST_P(CudaOps, KernelsAgreeWithThePlainOne) {
  each_node(GetParam(), DType::f32, check_node);
}

TEST_P(CudaOps, KernelsAgreeInBf16) {
  each_node(GetParam(), DType::bf16, check_node);
}

// What differs from bf16 is how an element is stored, so the shapes are not gone through again.
class CudaOpsInF16 : public CudaOps {};

TEST_P(CudaOpsInF16, KernelsAgree) {
  each_node(GetParam(), DType::f16, check_node);
}

INSTANTIATE_TEST_SUITE_P(Rows, CudaOps, testing::ValuesIn(cpu::op_cases()), cpu::test_name);
INSTANTIATE_TEST_SUITE_P(Rows, CudaOpsInF16, testing::ValuesIn(cpu::op_cases()), cpu::test_name);
INSTANTIATE_TEST_SUITE_P(Shapes, CudaOps, testing::ValuesIn(shape_cases()), cpu::test_name);

TEST(CudaOpTable, ReachesEveryKernelAndLacksTheseOps) {
  put_payloads_on_device();
  std::set<std::string> lacking;
  std::set<std::string_view> found;
  std::set<std::pair<std::string_view, std::string_view>> reached;
  std::vector<OpCase> rows = shape_cases();
  rows.insert(rows.end(), cpu::op_cases().begin(), cpu::op_cases().end());
  for (const OpCase& row : rows) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      each_node(row, dtype, [&](LoneNode& lone) {
        lacking.emplace(lone.node().op->name);
        each_kernel(lone, [&](const std::string&, const KernelDef& def, const KernelEnvironment&) {
          found.insert(def.op);
          reached.emplace(def.op, def.name);
        });
      });
    }
  }
  for (const std::string_view op : found) lacking.erase(std::string(op));
  // Made by rewrites of the CPU's graphs alone.
  EXPECT_THAT(lacking, testing::ElementsAre("depthwise_block", "depthwise_block_grad"));
  for (const KernelDef& def : all_kernels().all()) {
    EXPECT_TRUE(reached.contains({def.op, def.name})) << def.op << " by " << def.name;
  }
}

}  // namespace
}  // namespace ftrain::cuda
