// The nodes of the op table for tests of the CUDA device: each alone, in f32 or with activations in
// 16 bits, and in every order of elements that kernels of this device know.
#pragma once

#include <cstdint>
#include <string>

#include "plugins/devices/cuda/device/layout.h"
#include "tests/plugins/devices/cpu/kernel_run.h"
#include "tests/plugins/devices/cpu/lone_node.h"
#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cuda {

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

inline cpu::Bytes rearranged(const TensorType& type, const void* from, bool to_layout) {
  cpu::Bytes made(type.bytes(), from);
  if (type.layout == row_major) return made;
  if (size_of(type.dtype) == 2) {
    rearrange<std::uint16_t>(type.shape, from, to_layout, made.data());
  } else {
    rearrange<float>(type.shape, from, to_layout, made.data());
  }
  return made;
}

// f(layout's name) with the node's types set so: row-major; images channels-last; and besides the
// weights of convolutions.
template <class F>
void each_layout(cpu::LoneNode& lone, const F& f) {
  f("row-major");
  for (const bool weights : {false, true}) {
    if (weights && lone.weight_type() == nullptr) continue;
    bool any = false;
    for (TensorType* type : lone.types()) {
      if (type->shape.rank() != 4 || !is_floating(type->dtype)) continue;
      if (type == lone.weight_type() && !weights) continue;
      type->layout = channels_last;
      any = true;
    }
    if (any) f(weights ? "channels-last with its weight" : "channels-last");
    for (TensorType* type : lone.types()) type->layout = row_major;
  }
}

// f(lone node) for every node of the row; in 16 bits for those with activations alone.
template <class F>
void each_node(const cpu::OpCase& row, DType dtype, const F& f) {
  const cpu::BuiltCase built(row, DType::f32);
  cpu::Interpreter interpreter(built.leaves.graph);
  built.leaves.fill(interpreter);
  interpreter.run();
  for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
    const Node& node = built.leaves.graph.node(i);
    if (node.op->leaf || is_collective(node)) continue;
    if (dtype == DType::f32) {
      cpu::LoneNode lone(node, interpreter);
      f(lone);
    } else if (const auto operands = cpu::taken_in_16_bits(node); !operands.empty()) {
      cpu::LoneNode lone(node, interpreter, operands, dtype);
      f(lone);
    }
  }
}

}  // namespace ftrain::cuda
