#include "tests/cuda/standin/oracle.h"

#include <omp.h>

#include <bit>
#include <cstdint>
#include <map>
#include <utility>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cuda/device/layout.h"

namespace standin {
namespace {

using ftrain::DType;
using ftrain::TensorType;

const ftrain::KernelList& cpu_kernels() {
  static const ftrain::KernelList list = [] {
    ftrain::KernelList made;
    ftrain::cpu::add_reference_kernels(made);
    ftrain::cpu::add_onednn_kernels(made);
    return made;
  }();
  return list;
}

// f(index in row-major order, index in the tensor's own).
template <class F>
void each_element(const TensorType& type, const F& f) {
  const ftrain::Shape& shape = type.shape;
  if (type.layout != ftrain::cuda::channels_last) {
    for (std::int64_t i = 0; i < shape.elements(); ++i) f(i, i);
    return;
  }
  const std::int64_t channels = shape[1], positions = shape[2] * shape[3];
  for (std::int64_t n = 0; n < shape[0]; ++n) {
    const std::int64_t first = n * channels * positions;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < positions; ++p) {
        f(first + c * positions + p, first + p * channels + c);
      }
    }
  }
}

}  // namespace

void widen(const TensorType& type, const void* from, float* row_major) {
  const auto* const wide = static_cast<const float*>(from);
  const auto* const bf16 = static_cast<const ftrain::BF16*>(from);
  const auto* const f16 = static_cast<const ftrain::F16*>(from);
  each_element(type, [&](std::int64_t plain, std::int64_t own) {
    row_major[plain] = type.dtype == DType::f32    ? wide[own]
                       : type.dtype == DType::bf16 ? ftrain::to_f32(bf16[own])
                                                   : ftrain::to_f32(f16[own]);
  });
}

void narrow(const TensorType& type, const float* row_major, void* to) {
  each_element(type, [&](std::int64_t plain, std::int64_t own) {
    const float value = row_major[plain];
    if (type.dtype == DType::f32) {
      static_cast<float*>(to)[own] = value;
    } else if (type.dtype == DType::bf16) {
      static_cast<ftrain::BF16*>(to)[own] = ftrain::to_bf16(value);
    } else {
      static_cast<ftrain::F16*>(to)[own] = ftrain::to_f16(value);
    }
  });
}

void round_to_tf32(std::vector<float>& values) {
  for (float& value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) continue;
    value = std::bit_cast<float>((bits + 0x1000u) & ~0x1fffu);
  }
}

HostNode::HostNode(const ftrain::Node& node) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    inputs_.emplace_back(static_cast<std::size_t>(node.input(i).shape.elements()));
  }
  output_.resize(static_cast<std::size_t>(node.outputs[0].shape.elements()));
  const ftrain::KernelEnvironment environment{.threads = 1, .isa = "avx512"};
  kernel_ = cpu_kernels().choose(node, environment).def->make(node, environment);
  scratch_.resize(kernel_->scratch_bytes() + 64);
  std::vector<void*> inputs;
  for (auto& input : inputs_) inputs.push_back(input.data());
  void* const output = output_.data();
  const auto address = reinterpret_cast<std::uintptr_t>(scratch_.data());
  kernel_->bind(inputs, std::span<void* const>(&output, 1),
                reinterpret_cast<void*>((address + 63) / 64 * 64));
}

void HostNode::run() {
  omp_set_num_threads(1);
  kernel_->launch();
}

HostOp::HostOp(const ftrain::Node& like) {
  auto graph = std::make_shared<ftrain::Graph>();
  std::vector<ftrain::Value> operands;
  text_ = std::string(like.op->name) + " " + like.attributes.text();
  for (std::size_t i = 0; i < like.inputs.size(); ++i) {
    const TensorType type{DType::f32, like.input(i).shape, ""};
    operands.push_back(graph->input("operand" + std::to_string(i), type));
    text_ += " " + type.text();
  }
  node_ = graph->emit(*like.op, operands, like.attributes, like.name).node_index();
  graph_ = std::move(graph);
}

HostNode& HostOp::here() const {
  thread_local std::map<std::string, std::unique_ptr<HostNode>> nodes;
  std::unique_ptr<HostNode>& node = nodes[text_];
  if (!node) node = std::make_unique<HostNode>(graph_->node(node_));
  return *node;
}

}  // namespace standin
