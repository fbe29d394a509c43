#include "plugins/devices/cuda/device/executable.h"

#include <cstring>
#include <utility>

#include "core/compile/overlap.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/order.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/host_meeting.h"

namespace ftrain::cuda {
namespace {

// Fetched values up to this are copied to the host in every run.
constexpr std::size_t largest_copy = std::size_t{4} << 20;

std::size_t index_of(const std::vector<Graph::Named>& list, std::string_view name,
                     const char* what) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].name == name) return i;
  }
  std::vector<std::string> names;
  for (const Graph::Named& named : list) names.push_back(named.name);
  throw DeviceError("the program has no " + std::string(what) + " '" + std::string(name) + "'" +
                    did_you_mean(name, names));
}

}  // namespace

InputPlaces place_inputs(const Graph& graph) {
  InputPlaces inputs;
  for (const Graph::Named& input : graph.inputs()) {
    const std::size_t bytes = input.value.type().bytes();
    inputs.places.push_back({inputs.bytes, bytes});
    inputs.bytes += aligned_bytes(bytes);
  }
  return inputs;
}

CudaExecutable::CudaExecutable(Program program, Store& store, Machine& machine,
                               Communicator* communicator, const RunOptions& options)
    : program_(std::move(program)),
      store_(store),
      machine_(machine),
      options_(options),
      waiter_(machine, communicator),
      places_(place_inputs(*program_.graph)) {
  inputs_ = store_.add(program_.graph->states(), places_.bytes);
  arena_ = store_.workspace(program_.plan.arena_bytes);
  uploads_ = std::make_unique<Uploads>(machine_, waiter_, places_.places, inputs_, places_.bytes);
  make_launches(options.overlap);
  find_waits();
  place_fetches();
  if (waiter_.through_host()) check_host_calls_meet(machine_, *communicator);
}

// Kernels and their host calls must stay until the GPU is done with them.
CudaExecutable::~CudaExecutable() {
  for (const Stream* stream :
       {&machine_.main, &machine_.collectives, &machine_.copies, &machine_.uploads}) {
    cudaStreamSynchronize(*stream);
  }
}

void CudaExecutable::make_launches(bool overlap) {
  const Graph& graph = *program_.graph;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    const auto n = static_cast<std::size_t>(i);
    if (program_.instances[n] == nullptr) continue;
    const bool kept = !program_.kept.empty() && program_.kept[n];
    Launch launch;
    launch.node = i;
    if (overlap && is_collective(node) && !kept) {
      beside_.emplace_back().node = i;
      launch.beside = beside_.size();
    }
    launch.kernel = program_.instances[n].get();
    std::vector<void*> inputs, outputs;
    for (const Value& input : node.inputs) {
      inputs.push_back(input.valid() ? address(input) : nullptr);
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      outputs.push_back(address({program_.graph.get(), i, static_cast<std::int32_t>(o)}));
    }
    launch.kernel->bind(inputs, outputs, arena_ + program_.plan.scratch[n].offset);
    (kept ? kept_ : launches_).push_back(std::move(launch));
  }
}

void CudaExecutable::find_waits() {
  if (beside_.empty()) return;
  std::vector<BesideLaunch> launches;
  for (const Launch& launch : launches_) {
    const Node& node = program_.graph->node(launch.node);
    launches.push_back({touched_by(
                            program_, node, [this](Value value) { return address(value); }, arena_),
                        launch.beside > 0});
  }
  const std::vector<std::size_t> waits = waits_of(launches);
  for (std::size_t i = 0; i < launches_.size(); ++i) launches_[i].waits = waits[i];
}

void CudaExecutable::place_fetches() {
  std::size_t total = 0;
  std::vector<std::size_t> offsets;
  for (const Graph::Named& fetch : program_.graph->fetches()) {
    const std::size_t bytes = fetch.value.type().bytes();
    offsets.push_back(total);
    if (bytes <= largest_copy) total += aligned_bytes(bytes);
  }
  fetched_ = PinnedMemory(2 * total, "fetched values");
  if (total > 0) std::memset(fetched_.data(), 0, 2 * total);
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    const Value value = program_.graph->fetches()[i].value;
    const bool copied = value.type().bytes() <= largest_copy;
    Fetch& fetch = fetches_.emplace_back();
    fetch.address = address(value);
    if (!copied) continue;
    fetch.copies[0] = fetched_.data() + offsets[i];
    fetch.copies[1] = fetch.copies[0] + total;
  }
}

// Those of the run before the last are read before this run is enqueued, and may be overwritten.
void CudaExecutable::copy_fetches() {
  for (std::size_t i = 0; i < fetches_.size(); ++i) {
    const Fetch& fetch = fetches_[i];
    if (fetch.copies[0] == nullptr) continue;
    check(cudaMemcpyAsync(fetch.copies[runs_ % 2], fetch.address,
                          program_.graph->fetches()[i].value.type().bytes(), cudaMemcpyDeviceToHost,
                          machine_.main),
          "copying fetched values to the host");
  }
}

char* CudaExecutable::address(Value value) const {
  while (value.node().op->view) value = value.node().inputs[0];
  if (value.node().op->leaf) {
    if (const Graph::State* state = program_.graph->state_of(value)) {
      return store_.address(state->spec.name);
    }
    const std::vector<Graph::Named>& inputs = program_.graph->inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].value.node_index() == value.node_index()) {
        return inputs_ + places_.places[i].offset;
      }
    }
  }
  const Block& block = program_.plan.values[static_cast<std::size_t>(value.node_index())]
                                           [static_cast<std::size_t>(value.output())];
  return arena_ + block.offset;
}

std::string CudaExecutable::title(const Launch& launch) const {
  const Node& node = program_.graph->node(launch.node);
  const auto n = static_cast<std::size_t>(launch.node);
  return "node " + std::to_string(launch.node) + (node.name.empty() ? "" : " '" + node.name + "'") +
         ", " + std::string(node.op->name) + " by " + std::string(program_.kernels[n].def->name);
}

void CudaExecutable::write(std::string_view input, const void* data) {
  machine_.gpu.use();
  uploads_->write(index_of(program_.graph->inputs(), input, "input"), data);
}

// Inputs are brought along, and what is kept is made where it is stale.
void CudaExecutable::begin() {
  machine_.gpu.use();
  uploads_->begin();
  if (store_.enter(arena_, this)) stale_ = true;
  if (std::exchange(seen_writes_, store_.writes()) != store_.writes()) stale_ = true;
  if (!stale_) return;
  for (const Launch& launch : kept_) perform_and_wait(launch, machine_.main);
  stale_ = false;
}

void CudaExecutable::end() {
  copy_fetches();
  Event& done = done_[runs_ % 2];
  done.record(machine_.main);
  uploads_->end();
  ++runs_;
  if (waiter_.through_host()) waiter_.wait(done, "running the step");
}

void CudaExecutable::perform(const Launch& launch) const {
  try {
    launch.kernel->launch();
  } catch (const DeviceError& error) {
    throw DeviceError(title(launch) + ": " + error.what());
  }
}

// Where [device] check asks for it the host waits.
void CudaExecutable::perform_and_wait(const Launch& launch, cudaStream_t stream) const {
  perform(launch);
  if (!options_.check) return;
  const cudaError_t error = cudaStreamSynchronize(stream);
  if (error == cudaSuccess) return;
  throw DeviceError(title(launch) + ", failed on the GPU: " + text_of(error));
}

template <class Perform, class Wait>
void CudaExecutable::enqueue(const Perform& perform, const Wait& wait) {
  for (const Launch& launch : launches_) {
    if (launch.beside > 0) {
      Beside& beside = beside_[launch.beside - 1];
      beside.ready.record(machine_.main);
      wait_for(machine_.collectives, beside.ready);
      perform(launch, machine_.collectives);
      beside.done.record(machine_.collectives);
      continue;
    }
    if (launch.waits > 0) wait(beside_[launch.waits - 1]);
    perform(launch, machine_.main);
  }
  if (!beside_.empty()) wait(beside_.back());
}

void CudaExecutable::enqueue_plain() {
  enqueue([this](const Launch& launch, cudaStream_t stream) { perform_and_wait(launch, stream); },
          [this](const Beside& beside) { wait_for(machine_.main, beside.done); });
}

// Once, and with no step under way: libraries that are recorded may look at what they have
// enqueued.
void CudaExecutable::record() {
  waiter_.wait(done_[(runs_ + 1) % 2], "running the step");
  try {
    Capture capture(machine_.main);
    enqueue(
        [&](const Launch& launch, cudaStream_t) {
          perform(launch);
          if (!capture.intact()) {
            throw DeviceError(title(launch) + ": it does what cannot be recorded");
          }
        },
        [this](const Beside& beside) { wait_for(machine_.main, beside.done); });
    recording_ = capture.finish();
  } catch (const DeviceError& error) {
    throw DeviceError("the step could not be captured: " + std::string(error.what()) +
                      "; [device] capture = false runs it without");
  }
}

void CudaExecutable::run() {
  begin();
  if (!recording_ && options_.capture && !options_.check && runs_ >= plain_runs) record();
  recording_ ? recording_.launch(machine_.main) : enqueue_plain();
  end();
}

std::vector<TimelineEvent> CudaExecutable::run_with_timeline() {
  struct Span {
    std::string name;
    const Node* node;
    int lane;
    Event begin, end;
  };
  std::vector<Span> spans;
  const auto around = [&](std::string name, std::int32_t node, int lane, cudaStream_t stream,
                          const auto& body) {
    Span span{std::move(name), &program_.graph->node(node), lane, Event(Event::Kind::timed),
              Event(Event::Kind::timed)};
    span.begin.record(stream);
    body();
    span.end.record(stream);
    spans.push_back(std::move(span));
  };
  begin();
  Event start(Event::Kind::timed);
  start.record(machine_.main);
  enqueue(
      [&](const Launch& launch, cudaStream_t stream) {
        const bool collective = is_collective(program_.graph->node(launch.node));
        around("", launch.node, collective ? 1 : 0, stream, [&] { perform(launch); });
      },
      [&](const Beside& beside) {
        around("wait", beside.node, 0, machine_.main,
               [&] { wait_for(machine_.main, beside.done); });
      });
  end();
  waiter_.wait(done_[(runs_ - 1) % 2], "running the step");
  std::vector<TimelineEvent> events;
  for (Span& span : spans) {
    const Node& node = *span.node;
    const std::string op(node.op->name);
    const double from = span.begin.seconds_since(start), to = span.end.seconds_since(start);
    // Collectives among the kernels are what these wait for.
    if (span.lane == 1 && beside_.empty()) events.push_back({"wait", op, 0, from, to});
    if (span.name.empty()) span.name = node.name.empty() ? op : node.name;
    events.push_back({std::move(span.name), op, span.lane, from, to});
  }
  return events;
}

void CudaExecutable::read(std::string_view fetch, void* data) {
  machine_.gpu.use();
  const std::size_t i = index_of(program_.graph->fetches(), fetch, "fetched value");
  const TensorType& type = program_.graph->fetches()[i].value.type();
  const std::size_t turn = (runs_ + 1) % 2;  // of the last run
  waiter_.wait(done_[turn], "running the step");
  if (const char* copy = fetches_[i].copies[turn]) return to_row_major(type, copy, data);
  std::vector<char> whole(type.bytes());
  store_.staging().to_host(whole.data(), fetches_[i].address, whole.size(), machine_.main,
                           "fetched value '" + std::string(fetch) + "'");
  to_row_major(type, whole.data(), data);
}

void CudaExecutable::read_before(std::string_view fetch, void* data) {
  machine_.gpu.use();
  const std::size_t i = index_of(program_.graph->fetches(), fetch, "fetched value");
  const std::size_t turn = runs_ % 2;  // of the run before the last
  const char* copy = fetches_[i].copies[turn];
  if (!runs_ahead() || runs_ < 2 || copy == nullptr) return Executable::read_before(fetch, data);
  waiter_.wait(done_[turn], "running the step");
  to_row_major(program_.graph->fetches()[i].value.type(), copy, data);
}

}  // namespace ftrain::cuda
