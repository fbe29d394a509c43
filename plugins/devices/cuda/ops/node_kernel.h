// A kernel out of a lambda: what launch() enqueues, given the node's addresses and the stream.
//
//   list.add({.op = "constant", .name = own_name, .refuse = refuse_storage,
//             .make = [](const Node&, const KernelEnvironment& environment) {
//               return kernel_of(environment, [](const Buffers& at, cudaStream_t stream) {
//                 launch(store_constant, Grid{.threads = 1}, stream, 1, at.output<float>(0));
//               });
//             }});
//
// What needs the node is done in make(); the lambda holds the rest by value. Ownership: the context
// outlives the kernel. Threads: one at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/runtime/launch.h"

namespace ftrain::cuda {

inline constexpr std::string_view own_name = "cuda";

// The addresses of a node's operands; nullptr for an input that is not given.
struct Buffers {
  std::vector<void*> inputs, outputs;
  void* scratch = nullptr;

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

struct KernelNeeds {
  std::size_t scratch = 0;  // bytes
  int overwrites = -1;
};

template <class Body>
class NodeKernel final : public Kernel {
 public:
  NodeKernel(const Context& context, Body body, KernelNeeds needs)
      : context_(context), body_(std::move(body)), needs_(needs) {}
  std::size_t scratch_bytes() const override { return needs_.scratch; }
  int overwrites() const override { return needs_.overwrites; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    at_ = {{inputs.begin(), inputs.end()}, {outputs.begin(), outputs.end()}, scratch};
  }
  void launch() override { body_(std::as_const(at_), context_.stream); }

 private:
  const Context& context_;
  Body body_;
  KernelNeeds needs_;
  Buffers at_;
};

template <class Body>
std::unique_ptr<Kernel> kernel_of(const KernelEnvironment& environment, Body body,
                                  KernelNeeds needs = {}) {
  return std::make_unique<NodeKernel<Body>>(context_of(environment), std::move(body), needs);
}

inline std::int64_t elements(const TensorType& type) {
  return type.shape.elements();
}

// f(T{}) with the C++ type that device code stores elements of f32, bf16 or f16 in.
template <class F>
auto with_storage(DType dtype, const F& f) {
  if (dtype == DType::bf16) return f(__nv_bfloat16{});
  return dtype == DType::f16 ? f(__half{}) : f(float{});
}

inline bool aligned(std::initializer_list<const void*> addresses) {
  return std::all_of(addresses.begin(), addresses.end(), [](const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
  });
}

// Blocks for `work` pieces whose threads go on by the whole grid: as many as run at once.
inline unsigned resident_blocks(std::int64_t work, const Context& context, unsigned threads = 256) {
  return blocks_for(work, threads, 1,
                    static_cast<unsigned>(context.multiprocessors) * 2048 / threads);
}

// Images [N, C, H, W] and matrices [N, C] as they lie: element i is of channel i / inner %
// channels.
struct ChannelOrder {
  std::int64_t samples = 1, channels = 1, positions = 1, inner = 1;

  explicit ChannelOrder(const TensorType& type) : samples(type.shape[0]), channels(type.shape[1]) {
    for (std::size_t i = 2; i < type.shape.rank(); ++i) positions *= type.shape[i];
    inner = type.layout == channels_last ? 1 : positions;
  }
};

// ---- why a kernel cannot do a node
inline bool is_stored(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

// Floating operands are f32, bf16 or f16, written ones f32; layouts are known.
inline std::string refuse_storage(const Node& node, const KernelEnvironment&) {
  std::string reason;
  const auto check = [&](const TensorType& type) {
    if (is_floating(type.dtype) && !is_stored(type.dtype)) {
      reason = "stores floats as f32, bf16 and f16 only, not " + std::string(name_of(type.dtype));
    }
    if (type.layout != row_major && (type.layout != channels_last || type.shape.rank() != 4)) {
      reason = "knows row-major and channels-last images only, not " + type.text();
    }
  };
  for (const Value& input : node.inputs) {
    if (input.valid()) check(input.type());
  }
  for (const TensorType& output : node.outputs) check(output);
  for (const int i : written_inputs(node)) {
    if (node.input(static_cast<std::size_t>(i)).dtype != DType::f32)
      reason = "writes f32 states only";
  }
  return reason;
}

// Besides, whatever has the first output's shape is of its type and order, and other floats are
// f32.
inline std::string refuse_unlike(const Node& node, const KernelEnvironment& environment) {
  std::string reason = refuse_storage(node, environment);
  const TensorType& like = node.outputs[0];
  if (!is_stored(like.dtype)) reason = "is for floats only, not " + like.text();
  for (const Value& input : node.inputs) {
    if (!input.valid()) continue;
    const TensorType& type = input.type();
    if (type.shape == like.shape && type != like) {
      reason = "wants one type and order, not both " + like.text() + " and " + type.text();
    }
    if (is_floating(type.dtype) && type.dtype != DType::f32 && type.shape != like.shape) {
      reason = "wants f32 beside " + like.text() + ", not " + type.text();
    }
  }
  return reason;
}

}  // namespace ftrain::cuda
