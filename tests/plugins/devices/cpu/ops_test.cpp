// Every kernel of every op against the plain one: alone, between guard bytes, in every layout that
// it accepts, for every instruction set, with one thread and with several.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <set>

#include "plugins/devices/cpu/device/device.h"
#include "plugins/devices/cpu/onednn/kernels.h"
#include "tests/plugins/devices/cpu/kernel_run.h"
#include "tests/plugins/devices/cpu/lone_node.h"
#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cpu {
namespace {

const KernelList& all_kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_reference_kernels(made);
    add_simd_kernels(made);
    add_onednn_kernels(made);
    add_class_center_kernels(made);
    return made;
  }();
  return list;
}

// Of the largest element. Winograd's sums round some ten times more.
double closeness_of(const KernelDef& def) {
  if (is_exact(def.op)) return 0;
  return def.name.starts_with("onednn winograd") ? 1e-4 : 1e-5;
}

// f(node, layout's name, kernel, environment) for every kernel that takes the node.
template <class F>
void each_kernel(LoneNode& lone, const F& f) {
  static const KernelOptions options{.winograd = true, .bf16 = has_bf16()};
  lone.each_layout([&](const std::string& layout) {
    for (const KernelDef* def : all_kernels().of(lone.node().op->name)) {
      for (const char* isa : {"plain", "avx2", "avx512"}) {
        for (const int threads : {1, 3}) {
          const KernelEnvironment environment{.threads = threads, .isa = isa, .device = &options};
          if (def->refuse && !def->refuse(lone.node(), environment).empty()) continue;
          f(layout, *def, environment);
        }
      }
    }
  });
}

void check_node(LoneNode& lone) {
  each_kernel(lone, [&](const std::string& layout, const KernelDef& def,
                        const KernelEnvironment& environment) {
    SCOPED_TRACE(std::string(def.op) + " by " + std::string(def.name) + " for " + environment.isa +
                 ", " + std::to_string(environment.threads) + " threads, " + layout + ": " +
                 lone.node().attributes.text());
    Run run(lone, def, environment, false, rearranged);
    run.launch();
    run.check(closeness_of(def));
    if (written_inputs(lone.node()).empty()) run.check_repeats();
    if (run.overwrites() < 0) return;
    SCOPED_TRACE("in place");
    Run again(lone, def, environment, true, rearranged);
    again.launch();
    again.check(closeness_of(def));
  });
}

class Ops : public testing::TestWithParam<OpCase> {};

TEST_P(Ops, KernelsAgreeWithThePlainOne) {
  const BuiltCase built(GetParam(), DType::f32);
  Interpreter interpreter(built.leaves.graph);
  built.leaves.fill(interpreter);
  interpreter.run();
  for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
    const Node& node = built.leaves.graph.node(i);
    if (node.op->leaf || is_collective(node)) continue;
    LoneNode lone(node, interpreter);
    check_node(lone);
  }
}

TEST_P(Ops, KernelsAgreeInBf16) {
  const BuiltCase built(GetParam(), DType::f32);
  Interpreter interpreter(built.leaves.graph);
  built.leaves.fill(interpreter);
  interpreter.run();
  for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
    const Node& node = built.leaves.graph.node(i);
    const std::vector<std::size_t> bf16 = taken_in_16_bits(node);
    if (bf16.empty()) continue;
    LoneNode lone(node, interpreter, bf16);
    check_node(lone);
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, Ops, testing::ValuesIn(op_cases()), test_name);

TEST(OpTable, ReachesEveryKernel) {
  std::set<std::pair<std::string_view, std::string_view>> reached;
  for (const OpCase& row : op_cases()) {
    const BuiltCase built(row, DType::f32);
    Interpreter interpreter(built.leaves.graph);
    built.leaves.fill(interpreter);
    interpreter.run();
    for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
      const Node& node = built.leaves.graph.node(i);
      if (node.op->leaf || is_collective(node)) continue;
      LoneNode lone(node, interpreter);
      const auto reach = [&](const std::string&, const KernelDef& def, const KernelEnvironment&) {
        reached.emplace(def.op, def.name);
      };
      each_kernel(lone, reach);
      const std::vector<std::size_t> bf16 = taken_in_16_bits(node);
      if (bf16.empty()) continue;
      LoneNode half(node, interpreter, bf16);
      each_kernel(half, reach);
    }
  }
  for (const KernelDef& def : all_kernels().all()) {
    if (def.op == "reorder") continue;  // layouts_test.cpp
    // oneDNN has it for AVX-512 alone.
    if (def.name == "onednn winograd" && (hwy::SupportedTargets() & HWY_AVX3) == 0) continue;
    EXPECT_TRUE(reached.contains({def.op, def.name})) << def.op << " by " << def.name;
  }
}

}  // namespace
}  // namespace ftrain::cpu
