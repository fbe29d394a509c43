#include "bench/kernels/problems.h"

#include <map>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops/class_center.h"

namespace ftrain::bench {
namespace {

std::string key_of(const Node& node, const KernelDef& def) {
  std::string key =
      std::string(def.name) + "|" + std::string(node.op->name) + "|" + node.attributes.text() + "|";
  for (const Value& input : node.inputs) key += (input.valid() ? input.type().text() : "-") + ",";
  for (const TensorType& output : node.outputs) key += output.text() + ",";
  return key;
}

// With the class-center walks, whose products core does not count.
double all_flops_of(const Node& node) {
  const std::string_view op = node.op->name;
  const bool forward = op == "class_center_forward";
  if (forward || op == "class_center_backward" || op == "class_center_update") {
    // Cosines, where they were not kept; and in the second walk the gradients of the features and
    // of the centers.
    const Shape& features = node.input(0).shape;
    const Value rows = node.inputs[forward ? center_forward::rows : center_pass::rows];
    const std::int64_t classes =
        rows.valid() ? rows.shape()[0] : node.input(center_pass::weight).shape[0];
    const bool kept = !forward && node.inputs[center_pass::cosines].valid();
    const double products = forward ? 1 : kept ? 2 : 3;
    return 2 * products * static_cast<double>(features.elements() * classes);
  }
  return cost_of(node).flops;
}

double bytes_of(const Node& node) {
  double bytes = 0;
  for (const Value& input : node.inputs) {
    if (input.valid()) bytes += static_cast<double>(input.type().bytes());
  }
  for (const TensorType& output : node.outputs) bytes += static_cast<double>(output.bytes());
  return bytes;
}

// Positive and small, so that variances, norms and counts make sense; indices that exist.
void fill(const TensorType& type, char* data) {
  const std::int64_t n = type.shape.elements();
  std::uint32_t state = 2463534242u;
  const auto next = [&] {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return 0.1f + 0.9f * static_cast<float>(state >> 8) / 16777216.0f;
  };
  for (std::int64_t i = 0; i < n; ++i) {
    switch (type.dtype) {
      case DType::u8:
        reinterpret_cast<std::uint8_t*>(data)[i] = static_cast<std::uint8_t>(255 * next());
        break;
      case DType::i32:  // rows of class centers
        reinterpret_cast<std::int32_t*>(data)[i] = static_cast<std::int32_t>(i);
        break;
      case DType::i64:
        reinterpret_cast<std::int64_t*>(data)[i] = i % 64;
        break;
      case DType::bf16:
        reinterpret_cast<BF16*>(data)[i] = to_bf16(next());
        break;
      case DType::f32:  // a scalar is a rate or a guard
        reinterpret_cast<float*>(data)[i] = type.shape.rank() == 0 ? 1e-6f : next();
        break;
      default:
        break;
    }
  }
}

}  // namespace

std::vector<Problem> problems_of(const Program& program, const KernelList& kernels,
                                 const KernelEnvironment& environment, bool every) {
  std::vector<Problem> problems;
  std::map<std::string, std::size_t> known;
  const auto add = [&](const Node& node, const KernelDef& def) {
    const auto [at, fresh] = known.emplace(key_of(node, def), problems.size());
    if (!fresh) {
      ++problems[at->second].count;
      return;
    }
    Problem problem;
    problem.node = &node;
    problem.def = &def;
    problem.flops = all_flops_of(node);
    problem.bytes = bytes_of(node);
    problem.bf16 =
        !node.inputs.empty() && node.inputs[0].valid() && node.input(0).dtype == DType::bf16;
    problem.title = std::string(node.op->name) + "/" + node.name;
    if (!node.outputs.empty()) problem.title += " " + node.outputs[0].text();
    problem.title += "/" + std::string(def.name);
    problems.push_back(std::move(problem));
  };
  for (std::int32_t i = 0; i < program.graph->size(); ++i) {
    const Node& node = program.graph->node(i);
    const KernelDef* chosen = program.kernels[static_cast<std::size_t>(i)].def;
    if (chosen == nullptr) continue;
    add(node, *chosen);
    if (!every) continue;
    for (const KernelDef* def : kernels.candidates(node, environment)) {
      if (def != chosen && def->priority > 0) add(node, *def);
    }
  }
  return problems;
}

Instance::Instance(const Problem& problem, const KernelEnvironment& environment)
    : kernel_(problem.def->make(*problem.node, environment)) {
  std::vector<void*> inputs, outputs;
  const auto place = [&](const TensorType& type) {
    memory_.emplace_back(std::max<std::size_t>(type.bytes(), 64), "a kernel's operand");
    fill(type, memory_.back().data());
    return static_cast<void*>(memory_.back().data());
  };
  for (const Value& input : problem.node->inputs) {
    inputs.push_back(input.valid() ? place(input.type()) : nullptr);
  }
  for (const TensorType& output : problem.node->outputs) outputs.push_back(place(output));
  memory_.emplace_back(std::max<std::size_t>(kernel_->scratch_bytes(), 64), "a kernel's scratch");
  kernel_->bind(inputs, outputs, memory_.back().data());
}

}  // namespace ftrain::bench
