#include "launch/cluster/work.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

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

// The rows of a walk: all of the rank's, or as many as are expected to be sampled. Their number
// varies, the slots for them are for the worst case.
double walked_rows(const Graph& graph, const Node& node, std::size_t rows) {
  const auto local = static_cast<double>(node.input(3).shape[0]);
  if (!node.inputs[rows].valid()) return local;
  const Node& sample = node.inputs[rows].node();
  const auto slots = static_cast<double>(node.input(rows).shape[0]);
  const Graph::State* centers = graph.state_of(node.inputs[3]);
  if (sample.op->name != "sample_classes" || centers == nullptr) return slots;
  // A class rests when neither its hash nor one of the batch's labels takes it.
  const auto classes = static_cast<double>(centers->spec.rows);
  const double rests = (1 - sample.attributes.number("sample_rate")) *
                       std::exp(-elements_of(sample.input(0)) / classes);
  return std::min(slots, local * (1 - rests));
}

// A class-center walk; ftrain/ops.h has the operands.
void add_walk(Work& work, const Graph& graph, const Node& node) {
  const bool forward = node.op->name == "class_center_forward";
  const TensorType& features = node.input(0);
  const TensorType& weight = node.input(3);
  const double walked = walked_rows(graph, node, forward ? 5 : 7);
  const auto width = static_cast<double>(weight.shape[1]);
  const double row = width * static_cast<double>(size_of(weight.dtype));
  // Cosines, where they were not kept; in the second walk the gradients of features and of centers.
  const bool kept = !forward && node.inputs[8].valid();
  const double products = forward ? 1 : kept ? 2 : 3;
  work.center_flops += 2 * products * elements_of(features) * walked;
  work.center_bytes += walked * row;  // the centers are read
  const double cosines = 4 * walked * static_cast<double>(features.shape[0]);
  if (kept || (forward && node.outputs.size() > 2)) work.center_bytes += cosines;
  if (node.op->name == "class_center_backward") {
    work.center_bytes += walked * width * 4 * (node.inputs[9].valid() ? 2 : 1);
  } else if (!forward) {
    const auto written = static_cast<double>(node.op->writes(node).size());  // centers and slots
    const bool all = node.attributes.flag("all_rows");
    const double updated = all ? static_cast<double>(weight.shape[0]) : walked;
    work.center_bytes += updated * row * (2 * written - 1);
  }
}

// Nothing but the update waits for it, and so it can go on beside the backward pass.
bool is_gradient_sum(const Graph& graph, const std::vector<std::vector<std::int32_t>>& uses) {
  static const std::set<std::string_view> users{"optimizer_update", "squared_norm"};
  bool any = false;
  for (const auto& output : uses) {
    for (const std::int32_t user : output) {
      any = true;
      if (!users.contains(graph.node(user).op->name)) return false;
    }
  }
  return any;
}

void add_collective(Work& work, const Node& node, bool overlaps) {
  using Kind = Collective::Kind;
  const std::string_view op = node.op->name;
  Collective collective{.kind = Kind::all_reduce, .bytes = 0, .overlaps = overlaps};
  if (op == "all_gather") collective.kind = Kind::all_gather;
  if (op == "reduce_scatter") collective.kind = Kind::reduce_scatter;
  if (op == "broadcast") collective.kind = Kind::broadcast;
  if (collective.kind == Kind::all_gather) {
    collective.bytes = bytes_of(node.outputs[0]) / (node.attributes.has("wire") ? 2 : 1);
  } else {
    for (const Value& input : node.inputs) collective.bytes += bytes_of(input.type());
  }
  work.collectives.push_back(collective);
}

void add_part(Work::Part& part, const Node& node) {
  part.flops += flops_of(node);
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
  bool after_centers = false;
  Work::Part all;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    const std::string_view op = node.op->name;
    if (node.op->leaf || node.op->view) continue;
    if (node.op->collective) {
      add_collective(work, node, is_gradient_sum(graph, uses[static_cast<std::size_t>(i)]));
    } else if (op.starts_with("class_center_")) {
      after_centers = true;
      add_walk(work, graph, node);
    } else if (op == "optimizer_update") {
      double bytes = bytes_of(node.input(0));  // the gradient, as large as the parameter
      for (const int written : node.op->writes(node)) {
        bytes += 2 * bytes_of(node.input(static_cast<std::size_t>(written)));
      }
      const Graph::State* state = graph.state_of(node.inputs[0]);
      const bool centers = state != nullptr && state->spec.name == "centers.weight";
      (centers ? work.center_bytes : work.update_bytes) += bytes;
    } else if (op != "target_cosine" && op != "sample_classes" && op != "squared_norm") {
      if (!after_centers) add_part(work.forward, node);
      add_part(all, node);
    }
  }
  // The first part's forward pass precedes all class centers; those of the others are as large.
  work.forward.flops *= work.parts;
  work.forward.elements *= work.parts;
  work.backward = {std::max(0.0, all.flops - work.forward.flops),
                   std::max(0.0, all.elements - work.forward.elements)};
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
