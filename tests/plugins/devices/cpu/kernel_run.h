// One run of a kernel on a lone node, between guard bytes, held against what is expected.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/plugins/devices/cpu/guarded.h"
#include "tests/plugins/devices/cpu/lone_node.h"

namespace ftrain::cpu {

// These round once an element at most, so every kernel gives the same bits.
inline bool is_exact(std::string_view op) {
  static const std::set<std::string_view> ops{
      "add",     "mul",  "scale",   "scale_by",  "relu",        "relu_grad", "prelu",
      "dropout", "cast", "reshape", "fill_like", "repeat_rows", "add_bias"};
  return ops.contains(op);
}

inline double number(float x) {
  return x;
}
inline double number(double x) {
  return x;
}
inline double number(BF16 x) {
  return to_f32(x);
}
inline double number(F16 x) {
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
    // Sums that are close may fall to both sides of where 16 bits round.
    const double share = std::is_same_v<T, F16> ? 1024 : 128;
    const double step = sizeof(T) == 2 && closeness > 0 ? std::abs(x) / share : 0;
    if (x == y || std::abs(x - y) <= closeness * largest + step) continue;
    return "element " + std::to_string(i) + " of " + type.text() + ": " + std::to_string(y) +
           " instead of " + std::to_string(x) + ", where the largest is " + std::to_string(largest);
  }
  return {};
}

// A tensor as it lies in its layout, or (`to_layout` false) back in row-major order.
using Rearrange = Bytes (*)(const TensorType& type, const void* from, bool to_layout);

// Empty when `got`, which lies in the type's layout, is what is expected in row-major order.
inline std::string compare(const TensorType& type, const Bytes& expected, const Guarded& got,
                           double closeness, Rearrange rearranged) {
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
  if (type.dtype == DType::f16) {
    return difference<F16>(type, expected.data(), found.data(), closeness);
  }
  return got.equals(expected.data()) ? "" : "other bytes in " + type.text();
}

// A kernel's run on a lone node. `in_place`: output 0 takes over the storage of the input that the
// kernel says it may.
class Run {
 public:
  Run(const LoneNode& lone, const KernelDef& def, const KernelEnvironment& environment,
      bool in_place, Rearrange rearranged)
      : lone_(lone), kernel_(def.make(lone.node(), environment)), rearranged_(rearranged) {
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
  // f(buffer): operands, outputs, scratch, each between its guards.
  template <class F>
  void each_buffer(const F& f) const {
    for (const auto* buffers : {&leaves_, &outputs_, &scratch_}) {
      for (const Guarded& buffer : *buffers) f(buffer);
    }
  }

  // `closeness`: of the largest element.
  void check(double closeness) const {
    const Node& node = lone_.node();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const bool moved = i == 0 && taken_ >= 0;
      const Guarded& lies = moved ? leaves_[static_cast<std::size_t>(taken_)] : outputs_[i];
      EXPECT_EQ(compare(node.outputs[i], lone_.outputs()[i], lies, closeness, rearranged_), "")
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
        EXPECT_EQ(compare(type, lone_.after()[i], leaves_[i], closeness, rearranged_), "")
            << "state " << i;
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
  std::unique_ptr<Kernel> kernel_;
  Rearrange rearranged_;
  std::vector<Bytes> before_;
  std::vector<Guarded> leaves_, outputs_, scratch_;
  int taken_ = -1;
};

// Which operands to take in 16 bits; none: the op or the operands are not for it.
inline std::vector<std::size_t> taken_in_16_bits(const Node& node) {
  std::vector<std::size_t> operands;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.op->narrowing.activations.contains(i)) operands.push_back(i);
  }
  const bool images = std::all_of(operands.begin(), operands.end(), [&](std::size_t i) {
    return node.input(i).dtype == DType::f32 && node.input(i).shape.rank() == 4;
  });
  return images ? operands : std::vector<std::size_t>{};
}

}  // namespace ftrain::cpu
