// Runs a graph node by node, in order, each with its own buffers: no plan, no device. For tests.
//
// Ops are done by the kernels of one name ("plain" unless said); an op without such a kernel is
// done by its decomposition of plain ops. Collectives behave as if every rank held the same
// tensors. Leaves are filled by the test: data<float>(value) is a value's elements, in the order of
// its layout. Ownership: the graph and the kernel list must outlive the interpreter.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/device/kernel.h"
#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/kernels.h"

namespace ftrain::cpu {

// Plain kernels of every op of core.
inline const KernelList& oracle_kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_reference_kernels(made);
    add_class_center_kernels(made);
    return made;
  }();
  return list;
}

class Interpreter {
 public:
  explicit Interpreter(const Graph& graph, const KernelList& kernels = oracle_kernels(),
                       std::string_view name = "plain")
      : graph_(graph), kernels_(kernels), name_(name) {
    for (std::int32_t i = 0; i < graph.size(); ++i) {
      auto& of_node = buffers_.emplace_back();
      for (const TensorType& type : graph.node(i).outputs) {
        // Words of 64 bits, so that every element type is aligned; with room around them, so that a
        // kernel that writes past its ends lives to be reported by the tests with guard bytes.
        of_node.emplace_back((type.bytes() + 7) / 8 + 2 * room);
      }
    }
  }

  std::byte* bytes(Value value) {
    return reinterpret_cast<std::byte*>(buffers_[static_cast<std::size_t>(value.node_index())]
                                                [static_cast<std::size_t>(value.output())]
                                                    .data() +
                                        room);
  }
  template <class T>
  std::span<T> data(Value value) {
    if (value.dtype() != dtype_of<T>) throw std::logic_error("not that element type");
    return {reinterpret_cast<T*>(bytes(value)), static_cast<std::size_t>(value.shape().elements())};
  }

  void run() { run(graph_.size()); }
  // The nodes before `end`: those that were emitted up to some point of building the graph.
  void run(std::int32_t end) {
    for (std::int32_t i = 0; i < end; ++i) run_node(graph_.node(i));
  }

 private:
  static constexpr std::size_t room = 16;

  // What a node is done by, made when it first runs.
  struct Work {
    std::unique_ptr<Kernel> kernel;
    std::vector<std::uint64_t> scratch;
    std::unique_ptr<Graph> decomposition;
    std::unique_ptr<Interpreter> decomposition_runs;
    std::vector<Value> decomposition_inputs, decomposition_outputs;
  };

  void run_node(const Node& node) {
    if (node.op->leaf) return;
    if (is_collective(node)) return run_collective(node);
    const auto [found, fresh] = work_.try_emplace(node.index);
    Work& work = found->second;
    if (fresh) make(node, work);
    if (work.kernel) {
      work.kernel->launch();
      return;
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!node.inputs[i].valid()) continue;
      std::memcpy(work.decomposition_runs->bytes(work.decomposition_inputs[i]),
                  bytes(node.inputs[i]), node.input(i).bytes());
    }
    work.decomposition_runs->run();
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      std::memcpy(bytes(output_of(node, i)),
                  work.decomposition_runs->bytes(work.decomposition_outputs[i]),
                  node.outputs[i].bytes());
    }
    for (const int w : written_inputs(node)) {
      const auto i = static_cast<std::size_t>(w);
      std::memcpy(bytes(node.inputs[i]),
                  work.decomposition_runs->bytes(work.decomposition_inputs[i]),
                  node.input(i).bytes());
    }
  }

  void make(const Node& node, Work& work) {
    const auto named = kernels_.of(node.op->name);
    const bool has_kernel = std::any_of(named.begin(), named.end(),
                                        [&](const KernelDef* def) { return def->name == name_; });
    if (!has_kernel && node.op->decomposition) {
      work.decomposition = std::make_unique<Graph>();
      Node copy = node;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        if (!node.inputs[i].valid()) continue;
        const std::string name = "input" + std::to_string(i);
        const bool state = graph_.state_of(node.inputs[i]) != nullptr;
        copy.inputs[i] = state ? work.decomposition->state({.name = name, .type = node.input(i)})
                               : work.decomposition->input(name, node.input(i));
      }
      work.decomposition_inputs = copy.inputs;
      work.decomposition_outputs = node.op->decomposition(*work.decomposition, copy);
      work.decomposition_runs = std::make_unique<Interpreter>(*work.decomposition, kernels_, name_);
      return;
    }
    const KernelEnvironment environment{.isa = "plain"};
    work.kernel = kernels_.choose(node, environment, name_).def->make(node, environment);
    work.scratch.resize((work.kernel->scratch_bytes() + 7) / 8);
    std::vector<void*> inputs, outputs;
    for (const Value& input : node.inputs) inputs.push_back(input.valid() ? bytes(input) : nullptr);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      outputs.push_back(bytes(output_of(node, i)));
    }
    work.kernel->bind(inputs, outputs, work.scratch.data());
  }

  void run_collective(const Node& node) {
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const Value y = output_of(node, i);
      if (y.dtype() == DType::f32) mirror<float>(node, node.inputs[i], y);
      if (y.dtype() == DType::f64) mirror<double>(node, node.inputs[i], y);
    }
  }

  template <class T>
  void mirror(const Node& node, Value from, Value to) {
    const std::span<T> x = data<T>(from), y = data<T>(to);
    const bool sums = node.op->name == "all_reduce" || node.op->name == "reduce_scatter";
    const T factor = sums ? static_cast<T>(node.attributes.integer("ranks")) : T(1);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = factor * x[i % x.size()];
  }

  Value output_of(const Node& node, std::size_t i) const {
    return {const_cast<Graph*>(&graph_), node.index, static_cast<std::int32_t>(i)};
  }

  const Graph& graph_;
  const KernelList& kernels_;
  std::string name_;
  std::vector<std::vector<std::vector<std::uint64_t>>> buffers_;
  std::map<std::int32_t, Work> work_;
};

}  // namespace ftrain::cpu
