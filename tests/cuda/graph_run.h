// Runs a graph of the CUDA device node by node on the stand-in, each with its own buffers: no plan,
// no device, no streams.
//
// Nodes are done by the best kernel that takes them; views share what they view. Ownership: graph,
// kernels and environment must outlive it. Failure: what the kernels throw.
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "ftrain/device/kernel.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/layout.h"
#include "tests/cuda/node_cases.h"

namespace ftrain::cuda {

// Numbers in [-1, 1) as the type holds them, row-major: bytes and counts are scaled up.
inline void write_numbers(const TensorType& type, const std::vector<float>& numbers, void* to) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const float x = numbers[i];
    switch (type.dtype) {
      case DType::u8:
        static_cast<std::uint8_t*>(to)[i] = static_cast<std::uint8_t>(127.5f + 127 * x);
        break;
      case DType::i64:
        static_cast<std::int64_t*>(to)[i] = static_cast<std::int64_t>(100 * (x + 1));
        break;
      case DType::f32:
        static_cast<float*>(to)[i] = x;
        break;
      default:
        throw std::logic_error("no numbers are written in " + type.text());
    }
  }
}

class GraphRun {
 public:
  GraphRun(const Graph& graph, const KernelList& kernels, const KernelEnvironment& environment)
      : values_(static_cast<std::size_t>(graph.size())) {
    for (std::int32_t i = 0; i < graph.size(); ++i) add(graph.node(i), kernels, environment);
  }

  void write(Value value, const std::vector<float>& numbers) {
    cpu::Bytes plain(value.type().bytes());
    write_numbers(value.type(), numbers, plain.data());
    const cpu::Bytes lies = rearranged(value.type(), plain.data(), true);
    std::memcpy(at(value), lies.data(), value.type().bytes());
  }
  std::vector<float> read(Value value) {
    const cpu::Bytes plain = rearranged(value.type(), at(value), false);
    const auto* const data = static_cast<const float*>(plain.data());
    return {data, data + value.shape().elements()};
  }

  void run() {
    for (const auto& kernel : kernels_) kernel->launch();
    if (cudaStreamSynchronize(nullptr) != cudaSuccess) throw std::runtime_error("a kernel failed");
  }

 private:
  void* at(Value value) {
    return values_[static_cast<std::size_t>(value.node_index())]
                  [static_cast<std::size_t>(value.output())]
                      ->data();
  }

  void add(const Node& node, const KernelList& kernels, const KernelEnvironment& environment) {
    auto& outputs = values_[static_cast<std::size_t>(node.index)];
    if (node.op->view) {
      const Value from = node.inputs[0];
      outputs.push_back(values_[static_cast<std::size_t>(from.node_index())]
                               [static_cast<std::size_t>(from.output())]);
      return;
    }
    for (const TensorType& type : node.outputs) {
      outputs.push_back(std::make_shared<cpu::Guarded>(type.bytes()));
    }
    if (node.op->leaf) return;
    auto kernel = kernels.choose(node, environment).def->make(node, environment);
    scratch_.push_back(std::make_unique<cpu::Guarded>(kernel->scratch_bytes()));
    std::vector<void*> from, to;
    for (const Value& input : node.inputs) from.push_back(input.valid() ? at(input) : nullptr);
    for (const auto& output : outputs) to.push_back(output->data());
    kernel->bind(from, to, scratch_.back()->data());
    kernels_.push_back(std::move(kernel));
  }

  std::vector<std::vector<std::shared_ptr<cpu::Guarded>>> values_;
  std::vector<std::unique_ptr<cpu::Guarded>> scratch_;
  std::vector<std::unique_ptr<Kernel>> kernels_;
};

}  // namespace ftrain::cuda
