// The bytes that a program of the CUDA device moves, from its graph.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "core/ops/norm_chain.h"
#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::cuda {

// In bytes.
struct Traffic {
  double convolutions = 0, norms = 0, rest = 0;  // each operand once
  double again = 0;                              // what norms read a second time
};

// Operands that a kernel reads again, by the numbers of inputs and (from `outputs` on) outputs.
inline constexpr std::size_t outputs = 100;
inline std::vector<std::size_t> read_again(std::string_view op) {
  // Statistics first, then the norm: its x twice. A norm behind it reads what was written.
  if (op == "norm_chain statistics norm prelu statistics norm" ||
      op == "norm_chain statistics norm add statistics norm")
    return {0, outputs};
  if (op.starts_with("norm_chain statistics norm")) return {0};
  // Sums first, then the gradient: dy and x twice.
  if (op == "norm_chain_grad sums input" || op == "norm_chain_grad sums input add" ||
      op == "norm_chain_grad prelu sums input") {
    return {0, 1};
  }
  // The same behind a sum, or behind another gradient, that is written.
  if (op == "norm_chain_grad add sums input" || op == "norm_chain_grad add prelu sums input")
    return {2, outputs};
  if (op.starts_with("norm_chain_grad norm add")) return {0, 1, 6, outputs};
  return {};
}

// What is written in place counts twice. Nodes that are kept from run to run move nothing.
inline Traffic traffic_of(const Graph& graph, const std::vector<bool>& kept) {
  Traffic moved;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->leaf || node.op->view) continue;
    if (!kept.empty() && kept[static_cast<std::size_t>(i)]) continue;
    double bytes = 0;
    const auto add = [&](const TensorType& type) { bytes += static_cast<double>(type.bytes()); };
    for (const Value& input : node.inputs) {
      if (input.valid()) add(input.type());
    }
    for (const TensorType& output : node.outputs) add(output);
    for (const int w : written_inputs(node)) add(node.input(static_cast<std::size_t>(w)));
    const std::string op = chain_title(node);
    for (const std::size_t i : read_again(op)) {
      const TensorType& type = i < outputs ? node.input(i) : node.outputs[i - outputs];
      moved.again += static_cast<double>(type.bytes());
    }
    const bool norm = op.starts_with("batch_") || op.starts_with("norm_chain") ||
                      op.starts_with("prelu") || op == "add";
    (op.starts_with("conv2d") ? moved.convolutions : norm ? moved.norms : moved.rest) += bytes;
  }
  return moved;
}

}  // namespace ftrain::cuda
