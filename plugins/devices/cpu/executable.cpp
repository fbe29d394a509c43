#include "plugins/devices/cpu/executable.h"

#include <omp.h>

#include <cstring>

#include "core/base/error.h"
#include "core/base/suggest.h"
#include "core/graph/opdef.h"
#include "plugins/devices/cpu/onednn/onednn.h"

namespace ftrain::cpu {
namespace {

Value find(const std::vector<Graph::Named>& list, std::string_view name, const char* what) {
  std::vector<std::string> names;
  for (const Graph::Named& named : list) {
    if (named.name == name) return named.value;
    names.push_back(named.name);
  }
  throw DeviceError("the program has no " + std::string(what) + " '" + std::string(name) + "'" +
                    did_you_mean(name, names));
}

}  // namespace

std::vector<std::unique_ptr<Kernel>> bound_nowhere(const Program& program,
                                                   const KernelEnvironment& environment) {
  std::vector<std::unique_ptr<Kernel>> kernels;
  alignas(64) static char nowhere[64];
  for (std::int32_t i = 0; i < program.graph->size(); ++i) {
    const Node& node = program.graph->node(i);
    const KernelDef* def = program.kernels[static_cast<std::size_t>(i)].def;
    // Ranks meet in a collective, and there are none here.
    if (def == nullptr || node.op->collective) continue;
    kernels.push_back(def->make(node, environment));
    std::vector<void*> inputs;
    for (const Value& input : node.inputs) inputs.push_back(input.valid() ? nowhere : nullptr);
    const std::vector<void*> outputs(node.outputs.size(), nowhere);
    kernels.back()->bind(inputs, outputs, nowhere);
  }
  return kernels;
}

CpuExecutable::CpuExecutable(Program program, Store& store, const KernelEnvironment& environment)
    : program_(std::move(program)), store_(store), threads_(environment.threads) {
  const Graph& graph = *program_.graph;
  // Inputs are resident beside the states.
  input_offsets_.resize(static_cast<std::size_t>(graph.size()));
  std::size_t input_bytes = 0;
  for (const Graph::Named& input : graph.inputs()) {
    const auto n = static_cast<std::size_t>(input.value.node_index());
    input_offsets_[n] = input_bytes;
    input_bytes += program_.plan.values[n][0].bytes;
  }
  inputs_ = store_.add(graph.states(), input_bytes);
  arena_ = store_.workspace(program_.plan.arena_bytes);

  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    const auto n = static_cast<std::size_t>(i);
    const KernelDef* def = program_.kernels[n].def;
    if (def == nullptr) continue;
    std::unique_ptr<Kernel> kernel = def->make(node, environment);
    std::vector<void*> inputs, outputs;
    for (const Value& input : node.inputs) {
      inputs.push_back(input.valid() ? address(input) : nullptr);
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      outputs.push_back(address({program_.graph.get(), i, static_cast<std::int32_t>(o)}));
    }
    kernel->bind(inputs, outputs, arena_ + program_.plan.scratch[n].offset);
    launches_.push_back({std::move(kernel), !program_.kept.empty() && program_.kept[n]});
  }
}

char* CpuExecutable::address(Value value) const {
  while (value.node().op->view) value = value.node().inputs[0];
  if (value.node().op->leaf) {
    if (const Graph::State* state = program_.graph->state_of(value)) {
      return static_cast<char*>(store_.address(state->spec.name));
    }
    return inputs_ + input_offsets_[static_cast<std::size_t>(value.node_index())];
  }
  const Block& block = program_.plan.values[static_cast<std::size_t>(value.node_index())]
                                           [static_cast<std::size_t>(value.output())];
  return arena_ + block.offset;
}

void CpuExecutable::write(std::string_view input, const void* data) {
  const Value value = find(program_.graph->inputs(), input, "input");
  std::memcpy(address(value), data, value.type().bytes());
}

void CpuExecutable::run() {
  store_.touch();
  if (store_.enter(arena_, this)) stale_ = true;
  omp_set_num_threads(threads_);  // of this thread; a rank may run on another than it compiled on
  for (const Launch& launch : launches_) {
    if (stale_ || !launch.kept) launch.kernel->launch();
  }
  stale_ = false;
}

void CpuExecutable::read(std::string_view fetch, void* data) {
  const Value value = find(program_.graph->fetches(), fetch, "fetched value");
  copy_to_row_major(value.type(), address(value), data);
}

}  // namespace ftrain::cpu
