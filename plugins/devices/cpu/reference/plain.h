// Plain kernels: a kernel out of a lambda.
//
// They are the oracle that every faster kernel is tested against, so they are written to be read:
// one thread, row-major tensors, f32 or f64, sums in double. Where operands have 16 bits they
// compute on f32 copies of them and round the results. Their name is "plain", their priority 0.
//
//   list.add(plain("relu", []<class T>(const Node& node, T) {
//     return [n = elements(node.outputs[0])](const Buffers& at) {
//       const T* x = at.input<T>(0);
//       T* y = at.output<T>(0);
//       for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] > 0 ? x[i] : T(0);
//     };
//   }));
//
// The outer lambda captures nothing and reads the node; the inner one is what launch() calls. What
// it needs of memory it captures (and is then mutable): launch() allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ftrain/device/kernel.h"
#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::cpu {

inline constexpr std::string_view plain_name = "plain";

// The addresses of a node's operands; nullptr for an input that is not given.
struct Buffers {
  std::vector<void*> inputs, outputs;

  template <class T>
  const T* input(std::size_t i) const {
    return static_cast<const T*>(inputs[i]);
  }
  template <class T>
  T* output(std::size_t i) const {
    return static_cast<T*>(outputs[i]);
  }
  // An input that the op writes.
  template <class T>
  T* state(std::size_t i) const {
    return static_cast<T*>(inputs[i]);
  }
};

template <class Body>
class PlainKernel final : public Kernel {
 public:
  explicit PlainKernel(Body body) : body_(std::move(body)) {}
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    at_ = {{inputs.begin(), inputs.end()}, {outputs.begin(), outputs.end()}};
  }
  void launch() override { body_(std::as_const(at_)); }

 private:
  Body body_;
  Buffers at_;
};

template <class Body>
std::unique_ptr<Kernel> kernel_of(Body body) {
  return std::make_unique<PlainKernel<Body>>(std::move(body));
}

inline std::int64_t elements(const TensorType& type) {
  return type.shape.elements();
}

// The floating type that a node computes in: its first floating output's or input's, f32 for 16
// bits.
DType computed_in(const Node& node);

// A kernel that computes in f32, for a node of which some operands are bf16 or f16.
bool has_16_bit_operands(const Node& node);
std::unique_ptr<Kernel> widened(const Node& node, std::unique_ptr<Kernel> in_f32);

// Why plain kernels cannot do a node: layouts, element types. The second says nothing about types.
std::string refuse_plain(const Node& node, const KernelEnvironment& environment);
std::string refuse_layouts(const Node& node, const KernelEnvironment& environment);

template <class Make>
KernelDef plain(std::string_view op, Make) {
  return {.op = op,
          .name = plain_name,
          .refuse = refuse_plain,
          .make = [](const Node& node, const KernelEnvironment&) {
            if (computed_in(node) == DType::f64) return kernel_of(Make{}(node, double{}));
            auto kernel = kernel_of(Make{}(node, float{}));
            return has_16_bit_operands(node) ? widened(node, std::move(kernel)) : std::move(kernel);
          }};
}

// A tensor of samples and channels: x[n][c][s] with s over the H W positions of an image ([N, C]
// has one), whose samples fall into equal runs of `groups`.
struct Planes {
  std::int64_t samples = 1, channels = 1, positions = 1, groups = 1;

  explicit Planes(const Shape& shape, std::int64_t groups_of_samples = 1)
      : samples(shape[0]), channels(shape[1]), groups(groups_of_samples) {
    for (std::size_t i = 2; i < shape.rank(); ++i) positions *= shape[i];
  }
  // Samples and positions of one group.
  std::int64_t count() const { return samples / groups * positions; }
  std::int64_t group_of(std::int64_t sample) const { return sample / (samples / groups); }

  // f(offset of x[n][c][0], row g of the moments, channel c), in memory order.
  template <class F>
  void each(const F& f) const {
    for (std::int64_t n = 0; n < samples; ++n) {
      for (std::int64_t c = 0; c < channels; ++c) {
        f((n * channels + c) * positions, group_of(n) * channels + c, c);
      }
    }
  }
};

void add_plain_elementwise(KernelList& list);
void add_plain_products(KernelList& list);
void add_plain_reductions(KernelList& list);
void add_plain_normalizations(KernelList& list);
void add_plain_step(KernelList& list);

}  // namespace ftrain::cpu
