// Every kernel of every op against the plain one: alone, between guard bytes, in every layout that
// it accepts, for every instruction set, with one thread and with several.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <set>

#include "plugins/devices/cpu/device.h"
#include "plugins/devices/cpu/onednn/kernels.h"
#include "plugins/devices/cpu/rewrite/precision.h"
#include "tests/plugins/devices/cpu/guarded.h"
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

// These round once an element at most, so every kernel gives the same bits.
bool is_exact(std::string_view op) {
  static const std::set<std::string_view> ops{
      "add",     "mul",  "scale",   "scale_by",  "relu",        "relu_grad", "prelu",
      "dropout", "cast", "reshape", "fill_like", "repeat_rows", "add_bias"};
  return ops.contains(op);
}

// Of the largest element. Winograd's sums round some ten times more.
double closeness_of(const KernelDef& def) {
  if (is_exact(def.op)) return 0;
  return def.name.starts_with("onednn winograd") ? 1e-4 : 1e-5;
}

double number(float x) {
  return x;
}
double number(double x) {
  return x;
}
double number(BF16 x) {
  return to_f32(x);
}

template <class T>
std::string difference(const TensorType& type, const void* expected, const void* got,
                       double closeness) {
  const auto* a = static_cast<const T*>(expected);
  const auto* b = static_cast<const T*>(got);
  double largest = 0;
  const std::int64_t count = type.shape.elements();
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(number(a[i])));
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = number(a[i]), y = number(b[i]);
    // Sums that are close may fall to both sides of where bf16 rounds.
    const double step = sizeof(T) == 2 && closeness > 0 ? std::abs(x) / 128 : 0;
    if (x == y || std::abs(x - y) <= closeness * largest + step) continue;
    return "element " + std::to_string(i) + " of " + type.text() + ": " + std::to_string(y) +
           " instead of " + std::to_string(x) + ", where the largest is " + std::to_string(largest);
  }
  return {};
}

// Empty when `got`, which lies in the type's layout, is what is expected in row-major order.
std::string compare(const TensorType& type, const Bytes& expected, const Guarded& got,
                    double closeness) {
  const Bytes found = rearranged(type, got.data(), false);
  if (type.dtype == DType::f32) {
    return difference<float>(type, expected.data(), found.data(), closeness);
  }
  if (type.dtype == DType::f64) {
    return difference<double>(type, expected.data(), found.data(), closeness);
  }
  if (type.dtype == DType::bf16) {
    return difference<BF16>(type, expected.data(), found.data(), closeness);
  }
  return got.equals(expected.data()) ? "" : "other bytes in " + type.text();
}

// A kernel's run on a lone node. `in_place`: output 0 takes over the storage of the input that the
// kernel says it may.
class Run {
 public:
  Run(const LoneNode& lone, const KernelDef& def, const KernelEnvironment& environment,
      bool in_place)
      : lone_(lone), def_(def), kernel_(def.make(lone.node(), environment)) {
    const Node& node = lone.node();
    for (std::size_t i = 0; i < lone.leaves().size(); ++i) {
      const TensorType& type = lone.leaves()[i].type();
      before_.push_back(rearranged(type, lone.before()[i].data(), true));
      leaves_.emplace_back(type.bytes(), before_[i].data());
    }
    for (const TensorType& type : node.outputs) outputs_.emplace_back(type.bytes());
    Guarded& scratch = scratch_.emplace_back(kernel_->scratch_bytes());
    std::vector<void*> inputs, outputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const int leaf = lone.leaf_of(i);
      inputs.push_back(leaf < 0 ? nullptr : leaves_[static_cast<std::size_t>(leaf)].data());
    }
    for (Guarded& output : outputs_) outputs.push_back(output.data());
    if (in_place) {
      taken_ = lone.leaf_of(static_cast<std::size_t>(kernel_->overwrites()));
      outputs[0] = leaves_[static_cast<std::size_t>(taken_)].data();
    }
    kernel_->bind(inputs, outputs, scratch.data());
  }

  int overwrites() const { return kernel_->overwrites(); }
  void launch() { kernel_->launch(); }

  void check() const {
    const Node& node = lone_.node();
    const double closeness = closeness_of(def_);
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const bool moved = i == 0 && taken_ >= 0;
      const Guarded& lies = moved ? leaves_[static_cast<std::size_t>(taken_)] : outputs_[i];
      EXPECT_EQ(compare(node.outputs[i], lone_.outputs()[i], lies, closeness), "")
          << "output " << i;
      EXPECT_TRUE(outputs_[i].intact()) << "guards of output " << i;
    }
    std::set<int> written;
    for (const int input : written_inputs(node)) {
      written.insert(lone_.leaf_of(static_cast<std::size_t>(input)));
    }
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      const TensorType& type = lone_.leaves()[i].type();
      EXPECT_TRUE(leaves_[i].intact()) << "guards of operand " << i;
      if (static_cast<int>(i) == taken_) continue;
      if (written.contains(static_cast<int>(i))) {
        EXPECT_EQ(compare(type, lone_.after()[i], leaves_[i], closeness), "") << "state " << i;
      } else {
        EXPECT_TRUE(leaves_[i].equals(before_[i].data())) << "operand " << i << " has changed";
      }
    }
    EXPECT_TRUE(scratch_[0].intact()) << "guards of the scratch";
  }

  // A second launch gives the same bits: nothing is kept in the scratch or the kernel.
  void check_repeats() {
    std::vector<Bytes> first;
    for (const Guarded& output : outputs_) first.emplace_back(output.size(), output.data());
    launch();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      EXPECT_TRUE(outputs_[i].equals(first[i].data())) << "output " << i << " of a second launch";
    }
  }

 private:
  const LoneNode& lone_;
  const KernelDef& def_;
  std::unique_ptr<Kernel> kernel_;
  std::vector<Bytes> before_;
  std::vector<Guarded> leaves_, outputs_, scratch_;
  int taken_ = -1;
};

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
    Run run(lone, def, environment, false);
    run.launch();
    run.check();
    if (written_inputs(lone.node()).empty()) run.check_repeats();
    if (run.overwrites() < 0) return;
    SCOPED_TRACE("in place");
    Run again(lone, def, environment, true);
    again.launch();
    again.check();
  });
}

// Which operands to take in bf16; none: the op or the operands are not for it.
std::vector<std::size_t> taken_in_bf16(const Node& node) {
  const std::vector<std::size_t> operands = bf16_operands(node.op->name);
  const bool images = std::all_of(operands.begin(), operands.end(), [&](std::size_t i) {
    return node.input(i).dtype == DType::f32 && node.input(i).shape.rank() == 4;
  });
  return images ? operands : std::vector<std::size_t>{};
}

class Ops : public testing::TestWithParam<OpCase> {};

TEST_P(Ops, KernelsAgreeWithThePlainOne) {
  const BuiltCase built(GetParam(), DType::f32);
  Interpreter interpreter(built.leaves.graph);
  built.leaves.fill(interpreter);
  interpreter.run();
  for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
    const Node& node = built.leaves.graph.node(i);
    if (node.op->leaf || node.op->collective) continue;
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
    const std::vector<std::size_t> bf16 = taken_in_bf16(node);
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
      if (node.op->leaf || node.op->collective) continue;
      LoneNode lone(node, interpreter);
      const auto reach = [&](const std::string&, const KernelDef& def, const KernelEnvironment&) {
        reached.emplace(def.op, def.name);
      };
      each_kernel(lone, reach);
      const std::vector<std::size_t> bf16 = taken_in_bf16(node);
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
