#include "plugins/devices/cpu/device/executable.h"

#include <omp.h>

#include <chrono>
#include <cstring>

#include "core/compile/overlap.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "ftrain/graph/opdef.h"
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

void bind_nowhere(const Program& program) {
  alignas(64) static char nowhere[64];
  for (std::int32_t i = 0; i < program.graph->size(); ++i) {
    const Node& node = program.graph->node(i);
    Kernel* const kernel = program.instances[static_cast<std::size_t>(i)].get();
    // Ranks meet in a collective, and there are none here.
    if (kernel == nullptr || is_collective(node)) continue;
    std::vector<void*> inputs;
    for (const Value& input : node.inputs) inputs.push_back(input.valid() ? nowhere : nullptr);
    const std::vector<void*> outputs(node.outputs.size(), nowhere);
    kernel->bind(inputs, outputs, nowhere);
  }
}

CpuExecutable::CpuExecutable(Program program, Store& store, int threads, bool overlap)
    : program_(std::move(program)), store_(store), threads_(threads) {
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
    Kernel* const kernel = program_.instances[n].get();
    if (kernel == nullptr) continue;
    std::vector<void*> inputs, outputs;
    for (const Value& input : node.inputs) {
      inputs.push_back(input.valid() ? address(input) : nullptr);
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      outputs.push_back(address({program_.graph.get(), i, static_cast<std::int32_t>(o)}));
    }
    kernel->bind(inputs, outputs, arena_ + program_.plan.scratch[n].offset);
    Launch& launch = launches_.emplace_back();
    launch.kernel = kernel;
    launch.node = i;
    launch.kept = !program_.kept.empty() && program_.kept[n];
    if (overlap && is_collective(node)) {
      beside_.push_back(i);
      launch.release = beside_.size();
    }
  }
  if (beside_.empty()) return;
  find_waits();
  std::vector<Kernel*> collectives;
  for (const Launch& launch : launches_) {
    if (launch.release > 0) collectives.push_back(launch.kernel);
  }
  thread_ = std::make_unique<CollectiveThread>(std::move(collectives));
}

void CpuExecutable::find_waits() {
  std::vector<BesideLaunch> launches;
  for (const Launch& launch : launches_) {
    const Node& node = program_.graph->node(launch.node);
    launches.push_back({touched_by(
                            program_, node, [this](Value value) { return address(value); }, arena_),
                        launch.release > 0});
  }
  const std::vector<std::size_t> waits = waits_of(launches);
  for (std::size_t i = 0; i < launches_.size(); ++i) launches_[i].waits = waits[i];
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
  go<false>(nullptr);
}

template <bool timed>
void CpuExecutable::go(std::vector<TimelineEvent>* events) {
  store_.touch();
  if (store_.enter(arena_, this)) stale_ = true;
  omp_set_num_threads(threads_);  // of this thread; a rank may run on another than it compiled on
  if (thread_) thread_->start();
  const Time start = timed ? std::chrono::steady_clock::now() : Time();
  const auto record = [&](std::string name, const Node& node, int lane, Time begin, Time end) {
    const auto seconds = [&](Time time) {
      return std::chrono::duration<double>(time - start).count();
    };
    const std::string op(node.op->name);
    if (name.empty()) name = node.name.empty() ? op : node.name;
    events->push_back({std::move(name), op, lane, seconds(begin), seconds(end)});
  };
  const auto wait_for = [&](std::size_t count) {
    if constexpr (timed) {
      const Time begin = std::chrono::steady_clock::now();
      if (!thread_->wait(count)) return;
      record("wait", program_.graph->node(beside_[count - 1]), 0, begin,
             std::chrono::steady_clock::now());
    } else {
      thread_->wait(count);
    }
  };
  try {
    for (const Launch& launch : launches_) {
      if (!stale_ && launch.kept) continue;
      if (launch.release > 0) {
        thread_->release(launch.release);
        continue;
      }
      if (launch.waits > 0) wait_for(launch.waits);
      if constexpr (timed) {
        const Node& node = program_.graph->node(launch.node);
        const Time begin = std::chrono::steady_clock::now();
        launch.kernel->launch();
        const Time end = std::chrono::steady_clock::now();
        record("", node, is_collective(node) ? 1 : 0, begin, end);
        if (is_collective(node)) record("wait", node, 0, begin, end);
      } else {
        launch.kernel->launch();
      }
    }
    if (thread_) wait_for(beside_.size());
  } catch (...) {
    if (thread_) thread_->drop();
    throw;
  }
  stale_ = false;
  if constexpr (timed) {
    for (std::size_t k = 0; k < beside_.size(); ++k) {
      const CollectiveThread::Span& span = thread_->spans()[k];
      record("", program_.graph->node(beside_[k]), 1, span.begin, span.end);
    }
  }
}

std::vector<TimelineEvent> CpuExecutable::run_with_timeline() {
  std::vector<TimelineEvent> events;
  events.reserve(2 * launches_.size() + 1);
  go<true>(&events);
  return events;
}

void CpuExecutable::read(std::string_view fetch, void* data) {
  const Value value = find(program_.graph->fetches(), fetch, "fetched value");
  copy_to_row_major(value.type(), address(value), data);
}

}  // namespace ftrain::cpu
