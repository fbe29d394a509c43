#include "launch/plan_text.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "ftrain/graph/opdef.h"
#include "launch/command_line.h"

namespace ftrain::launch {
namespace {

using Json = nlohmann::ordered_json;

// Parameters of one part of the network.
struct Module {
  std::string name;
  std::int64_t parameters = 0, frozen = 0, tensors = 0;
};

// "layer1.0.conv1.weight" belongs to layer1, "layers.3.layers.0.weight" to layers.3.
std::string module_of(const std::string& name) {
  const std::size_t dot = name.find('.');
  const std::string first = name.substr(0, dot);
  const bool numbered =
      std::any_of(first.begin(), first.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (dot == std::string::npos || numbered) return first;
  const std::string second = name.substr(dot + 1, name.find('.', dot + 1) - dot - 1);
  const bool number =
      !second.empty() && std::all_of(second.begin(), second.end(),
                                     [](unsigned char c) { return std::isdigit(c) != 0; });
  return number ? first + "." + second : first;
}

// In the order of the network. A tensor that is split over ranks counts whole.
std::vector<Module> modules_of(const Graph& graph) {
  std::vector<Module> modules;
  for (const Graph::State& state : graph.states()) {
    const StateSpec& spec = state.spec;
    if (spec.role != StateSpec::Role::parameter) continue;
    const std::string name = module_of(spec.name);
    auto at = std::find_if(modules.begin(), modules.end(),
                           [&](const Module& module) { return module.name == name; });
    if (at == modules.end()) at = modules.insert(at, {name});
    std::int64_t count = spec.type.shape.elements();
    if (spec.rows > 0 && spec.type.shape[0] > 0) count = count / spec.type.shape[0] * spec.rows;
    ++at->tensors;
    (spec.trainable ? at->parameters : at->frozen) += count;
  }
  return modules;
}

std::int64_t total_of(const std::vector<Module>& modules) {
  std::int64_t total = 0;
  for (const Module& module : modules) total += module.parameters + module.frozen;
  return total;
}

// "conv2d by onednn" -> how often.
std::map<std::string, std::map<std::string, int>> kernel_counts(const Program& program) {
  std::map<std::string, std::map<std::string, int>> counts;
  for (std::size_t n = 0; n < program.kernels.size(); ++n) {
    const KernelDef* def = program.kernels[n].def;
    if (def != nullptr) ++counts[std::string(def->op)][std::string(def->name)];
  }
  return counts;
}

std::string parallelism_of(const Job& job) {
  return job.root().table("parallelism").text("plugin", "data_parallel");
}

// How the class centers are walked: those nodes with their inputs' types.
std::vector<std::string> class_center_nodes(const Program& program) {
  std::vector<std::string> lines;
  for (std::int32_t i = 0; i < program.graph->size(); ++i) {
    const Node& node = program.graph->node(i);
    if (node.op->concern != Concern::class_centers) continue;
    std::string line(node.op->name);
    const KernelDef* def = program.kernels[static_cast<std::size_t>(i)].def;
    if (def != nullptr) line += " by " + std::string(def->name);
    for (const TensorType& output : node.outputs) line += " " + output.text();
    if (const std::string text = node.attributes.text(); !text.empty()) line += "  " + text;
    // The parts of a step repeat each other.
    if (std::find(lines.begin(), lines.end(), line) == lines.end()) {
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

std::string right(const std::string& text, std::size_t width) {
  return std::string(text.size() < width ? width - text.size() : 0, ' ') + text;
}

std::string program_line(const char* name, const Program& program) {
  std::size_t kernels = 0;
  for (const KernelChoice& choice : program.kernels) kernels += choice.def != nullptr;
  return std::string(name) + ": " + std::to_string(kernels) + " kernels, arena " +
         memory_text(program.plan.arena_bytes) + " (no plan does with less than " +
         memory_text(program.plan.arena_floor) + ")\n";
}

std::string memory_lines(const MemoryPlan& memory) {
  std::vector<std::pair<const char*, std::size_t>> parts = {
      {"parameters, statistics, slots", memory.states},
      {"inputs", memory.resident - memory.states},
      {"arena of the training step", memory.arena},
      {"arena of the verification", memory.evaluation_arena},
      {"ring of decoded batches", memory.ring},
      {"copy or part of a checkpoint", memory.checkpoint},
      {"program and libraries", memory.process},
      {"predicted peak", memory.peak()}};
  if (memory.host > 0) {
    parts.insert(parts.begin() + 1, {"states in the host's memory", memory.host});
  }
  std::string text = memory.processes == 1
                         ? "memory of the process:\n"
                         : "memory of each of " + std::to_string(memory.processes) +
                               " processes (that of rank 0):\n";
  for (const auto& [name, bytes] : parts) {
    text += "  " + padded(name, 32) + right(memory_text(bytes), 14) + "\n";
  }
  return text;
}

}  // namespace

std::string plan_text(const StepPlan& plan, const Job& job) {
  const Assembly& a = plan.assembly;
  std::string text;
  for (const std::string& note : plan.notes) text += "note: " + note + "\n";
  text += a.job.name + ": " + a.device->summary() + "\n";
  if (!plan.data.empty()) text += "data: " + plan.data + "\n";
  text += "steps: " + (plan.steps ? count_text(*plan.steps) : "unknown without the data") + " of " +
          std::to_string(a.launch.processes) + " x " +
          (a.run.accumulate > 1 ? std::to_string(a.run.accumulate) + " x " : "") +
          std::to_string(a.data.batch) + " samples";
  if (plan.steps_per_epoch) text += ", " + count_text(*plan.steps_per_epoch) + " an epoch";
  text += "\ninputs:";
  for (const Graph::Named& input : plan.training.graph->inputs()) {
    text += " " + input.name + " " + input.value.type().text();
  }
  text += "\nclasses: " + count_text(plan.classes) + ", " + parallelism_of(job) + "\n";
  for (const std::string& line : class_center_nodes(plan.training)) text += "  " + line + "\n";

  const std::vector<Module> modules = modules_of(*plan.training.graph);
  text += "parameters:\n";
  for (const Module& module : modules) {
    text += "  " + padded(module.name, 24) +
            right(count_text(module.parameters + module.frozen), 16) + "  in " +
            std::to_string(module.tensors) + (module.tensors == 1 ? " tensor" : " tensors");
    if (module.frozen > 0) text += ", " + count_text(module.frozen) + " frozen";
    text += "\n";
  }
  text += "  " + padded("total", 24) + right(count_text(total_of(modules)), 16) + "\n";

  text += program_line("training step", plan.training);
  if (plan.evaluation) text += program_line("verification", *plan.evaluation);
  text += "kernels of the training step:\n";
  for (const auto& [op, kernels] : kernel_counts(plan.training)) {
    text += "  " + padded(op, 30);
    bool first = true;
    for (const auto& [name, count] : kernels) {
      text += (first ? "" : ", ") + std::to_string(count) + " by " + name;
      first = false;
    }
    text += "\n";
  }
  return text + memory_lines(plan.memory);
}

std::string plan_json(const StepPlan& plan, const Job& job) {
  const Assembly& a = plan.assembly;
  const std::vector<Module> modules = modules_of(*plan.training.graph);
  const MemoryPlan& memory = plan.memory;
  Json json;
  json["name"] = a.job.name;
  json["device"] = a.device->summary();
  json["notes"] = plan.notes;
  json["peak_memory_bytes"] = memory.peak();
  json["memory_processes"] = memory.processes;
  json["parameters"] = total_of(modules);
  json["modules"] = Json::array();
  for (const Module& module : modules) {
    json["modules"].push_back({{"name", module.name},
                               {"parameters", module.parameters + module.frozen},
                               {"frozen", module.frozen},
                               {"tensors", module.tensors}});
  }
  json["classes"] = plan.classes;
  json["parallelism"] = parallelism_of(job);
  json["steps"] = plan.steps ? Json(*plan.steps) : Json();
  json["steps_per_epoch"] = plan.steps_per_epoch ? Json(*plan.steps_per_epoch) : Json();
  json["batch"] = a.data.batch;
  json["processes"] = a.launch.processes;
  json["accumulate"] = a.run.accumulate;
  json["inputs"] = Json::object();
  for (const Graph::Named& input : plan.training.graph->inputs()) {
    json["inputs"][input.name] = input.value.type().text();
  }
  json["resident_bytes"] = memory.resident;
  json["state_bytes"] = memory.states;
  json["host_bytes"] = memory.host;
  json["arena_bytes"] = memory.arena;
  json["evaluation_arena_bytes"] = memory.evaluation_arena;
  json["ring_bytes"] = memory.ring;
  json["checkpoint_bytes"] = memory.checkpoint;
  json["process_bytes"] = memory.process;
  json["kernels"] = Json::array();
  for (std::size_t n = 0; n < plan.training.kernels.size(); ++n) {
    const KernelChoice& choice = plan.training.kernels[n];
    if (choice.def == nullptr) continue;
    const Node& node = plan.training.graph->node(static_cast<std::int32_t>(n));
    Json refused = Json::array();
    for (const auto& [kernel, reason] : choice.refused) {
      refused.push_back({{"kernel", kernel}, {"reason", reason}});
    }
    Json measured = Json::array();
    for (const auto& [kernel, seconds] : choice.measured) {
      measured.push_back({{"kernel", kernel}, {"seconds", seconds}});
    }
    json["kernels"].push_back({{"node", n},
                               {"op", std::string(node.op->name)},
                               {"name", node.name},
                               {"kernel", std::string(choice.def->name)},
                               {"flops", cost_of(node).flops},
                               {"measured", std::move(measured)},
                               {"refused", std::move(refused)}});
  }
  return json.dump(2) + "\n";
}

}  // namespace ftrain::launch
