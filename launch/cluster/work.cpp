#include "launch/cluster/work.h"

#include <algorithm>

#include "core/compile/passes.h"
#include "ftrain/device/kernel.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::cluster {
namespace {

double bytes_of(const TensorType& type) {
  return static_cast<double>(type.bytes());
}

double elements_of(const TensorType& type) {
  return static_cast<double>(type.shape.elements());
}

// Nothing but the update waits for it, and so it can go on beside the backward pass.
bool is_gradient_sum(const Graph& graph, const std::vector<std::vector<std::int32_t>>& uses) {
  bool any = false;
  for (const auto& output : uses) {
    for (const std::int32_t user : output) {
      any = true;
      if (graph.node(user).op->concern != Concern::update) return false;
    }
  }
  return any;
}

void add_collective(Work& work, const Node& node, bool overlaps) {
  Exchange exchange{.kind = node.op->collective, .bytes = 0, .overlaps = overlaps};
  if (exchange.kind == Collective::all_gather) {
    exchange.bytes = bytes_of(node.outputs[0]) / (node.attributes.has("wire") ? 2 : 1);
  } else {
    for (const Value& input : node.inputs) exchange.bytes += bytes_of(input.type());
  }
  work.collectives.push_back(exchange);
}

void add_part(Work::Part& part, const Node& node) {
  part.flops += cost_of(node).flops;
  for (const Value& input : node.inputs) {
    if (input.valid()) part.elements += elements_of(input.type());
  }
  for (const TensorType& output : node.outputs) part.elements += elements_of(output);
}

}  // namespace

Work work_of(const Graph& graph, std::int64_t parts) {
  Work work;
  work.parts = static_cast<double>(parts);
  for (const Graph::Named& input : graph.inputs()) {
    if (input.name == "label") work.samples = elements_of(input.value.type());
  }
  const auto uses = uses_of(graph);
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->leaf || node.op->view) continue;
    if (is_collective(node)) {
      add_collective(work, node, is_gradient_sum(graph, uses[static_cast<std::size_t>(i)]));
    } else if (node.op->concern == Concern::class_centers) {
      if (node.op->cost == nullptr) continue;  // little beside the passes over class centers
      const OpCost cost = cost_of(node);
      work.center_flops += cost.flops;
      work.center_bytes += cost.bytes;
    } else if (node.op->concern == Concern::update) {
      const std::vector<int> written = written_inputs(node);
      const Value first = written.empty() ? Value() : node.inputs[0];
      const Graph::State* state = graph.state_of(first);
      if (state == nullptr || state->spec.role != StateSpec::Role::parameter) continue;
      double bytes = bytes_of(first.type());  // the gradient, as large as the parameter
      for (const int w : written) bytes += 2 * bytes_of(node.input(static_cast<std::size_t>(w)));
      (state->spec.rows > 0 || state->spec.name == "centers.weight" ? work.center_bytes
                                                                    : work.update_bytes) += bytes;
    } else {
      add_part(node.stage.phase == Phase::forward ? work.forward : work.backward, node);
    }
  }
  return work;
}

Compute compute_of(const Work& work, const DeviceDescription& device, const std::string& precision,
                   const Measured* measured) {
  Compute compute;
  compute.centers = work.center_flops / device.flops + work.center_bytes / device.bandwidth;
  if (measured != nullptr) {
    const double seconds = work.samples / measured->samples_per_second;
    const double flops = work.forward.flops + work.backward.flops;
    compute.forward = flops > 0 ? seconds * work.forward.flops / flops : seconds;
    compute.backward = seconds - compute.forward;
    return compute;
  }
  const double element = precision == "bf16" || precision == "fp16" ? 2 : 4;
  const auto seconds = [&](const Work::Part& part) {
    return part.flops / (device.flops * device.reach) +
           part.elements * element * device.traffic / device.bandwidth;
  };
  compute.forward = seconds(work.forward);
  compute.backward = seconds(work.backward);
  compute.update = work.update_bytes / device.bandwidth;
  return compute;
}

}  // namespace ftrain::cluster
