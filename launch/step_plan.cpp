#include "launch/step_plan.h"

#include <algorithm>
#include <cmath>

#include "core/base/process.h"
#include "core/checkpoint/saver.h"
#include "core/data/sampler.h"
#include "core/train/step_graph.h"
#include "ftrain/base/error.h"
#include "launch/ranks/hosts.h"
#include "launch/ranks/supervise.h"

namespace ftrain::launch {
namespace {

// Of a state that lies row-major, core/checkpoint/state.cpp's part.
constexpr std::size_t largest_part_bytes = std::size_t{4} << 20;

// What only a run touches: pages of libraries, stacks of the decoding threads, the observers'
// buffers. 2.3 to 2.8 MiB on x86-64, whatever the network and the batch.
constexpr std::size_t first_use_bytes = std::size_t{5} << 19;

// The key `classes` that data sets of files have.
struct GivenClasses final : Configurable {
  std::optional<std::int64_t> classes;
  void configure(Keys& keys) override {
    keys.bind("classes", classes, "the number of classes", at_least(1));
  }
};

// Stands for the ranks of a step that is planned and never run.
class AbsentRanks final : public Communicator {
 public:
  explicit AbsentRanks(int size) { place_.size = size; }
  void connect(const RankPlace&) override { refuse(); }
  int rank() const override { return 0; }
  int size() const override { return place_.size; }
  const RankPlace& place() const override { return place_; }
  void all_reduce(void*, std::int64_t, DType, Reduction) override { refuse(); }
  void all_gather(const void*, void*, std::size_t) override { refuse(); }
  void reduce_scatter(const void*, void*, std::int64_t, DType) override { refuse(); }
  void broadcast(void*, std::size_t, int) override { refuse(); }
  void barrier() override { refuse(); }
  std::unique_ptr<Communicator> split(int, int) override { refuse(); }
  void abort(const std::string&) override {}

 private:
  [[noreturn]] static void refuse() {
    throw CommunicationError("a planned step has no ranks to talk to");
  }
  RankPlace place_;
};

// The states of a program by name, type and layout: what a second program must agree with.
class PlannedStates final : public StateStore {
 public:
  explicit PlannedStates(const Graph& graph) {
    for (const Graph::State& state : graph.states()) {
      entries_.push_back({state.spec, state.spec.type.bytes()});
      entries_.back().spec.type.layout = state.value.type().layout;
    }
  }
  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view name) const override {
    for (const Entry& entry : entries_) {
      if (entry.spec.name == name) return true;
    }
    return false;
  }
  void read(std::string_view, void*) const override { refuse(); }
  void write(std::string_view, const void*) override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw DeviceError("a planned state has no value"); }
  std::vector<Entry> entries_;
};

}  // namespace

StepPlan::StepPlan(const Job& job, Registry& registry, const PlanVariant& variant)
    : assembly(job, registry) {
  if (variant.batch) assembly.data.batch = *variant.batch;
  open_data(job);
  if (variant.classes) classes = *variant.classes;
  if (variant.ranks) {
    assembly.launch.processes = *variant.ranks;
    assembly.launch.hosts.clear();  // they have room for the job's own number
  }
  if (variant.parallelism) {
    const Table table = job.root().table("parallelism");
    assembly.parallelism = registry.create<Parallelism>(*variant.parallelism, table, table.keys());
  }
  prepare();
  add_up(choose_communicator(assembly.launch, registry) == "local", variant.process);
}

void StepPlan::open_data(const Job& job) {
  const Table table = job.root().table("dataset");
  steps = assembly.run.steps;
  try {
    assembly.dataset->open(assembly.seed());
  } catch (const DataError& error) {
    if (!table.has("classes")) {
      throw DataError(std::string(error.what()) +
                      "\nA job is planned without its data when [dataset] classes is given.");
    }
    GivenClasses given;
    table.read(given, table.keys());
    classes = given.classes.value();
    notes.push_back("the data are not there: planned with classes = " + std::to_string(classes) +
                    " (" + error.what() + ")");
    return;
  }
  classes = assembly.dataset->classes();
  data = assembly.dataset->summary();
  const Sampler sampler(assembly.dataset->size(),
                        assembly.data.batch * assembly.run.accumulate * assembly.launch.processes,
                        assembly.data.shuffle, assembly.seed());
  steps_per_epoch = sampler.steps_per_epoch();
  if (!steps) {
    steps = std::llround(*assembly.run.epochs * static_cast<double>(*steps_per_epoch));
  }
}

void StepPlan::prepare() {
  const int ranks = static_cast<int>(assembly.launch.processes);
  // Of the machine of rank 0.
  const auto hosts = take(read_hosts(assembly.launch.hosts, ranks, "[launch] hosts: "), ranks);
  const int here = hosts.empty() ? ranks : hosts[0].slots;
  AbsentRanks others(ranks);
  assembly.open_device(0, here);
  const auto step = training_graph(assembly, classes, 0, ranks);
  training = assembly.device->prepare(*step, nullptr, ranks > 1 ? &others : nullptr);
  if (assembly.pair_sets.empty()) return;
  const auto forward = evaluation_graph(assembly, assembly.verify.batch);
  const PlannedStates states(*training.graph);
  evaluation = assembly.device->prepare(*forward, &states, nullptr);
}

void StepPlan::add_up(bool threads, std::optional<std::size_t> process) {
  const auto all = static_cast<std::size_t>(assembly.launch.processes);
  const std::size_t ranks = threads ? all : 1;  // of a process
  memory.processes = all / ranks;
  const Plan& plan = training.plan;
  memory.resident = ranks * plan.resident_bytes;
  memory.states = ranks * plan.state_bytes;
  memory.host = ranks * plan.host_bytes;
  memory.arena = ranks * plan.arena_bytes;
  if (evaluation) {
    memory.resident += ranks * (evaluation->plan.resident_bytes - evaluation->plan.state_bytes);
    // The two never run at once: the verification works in the training step's arena where it fits.
    if (evaluation->plan.arena_bytes > plan.arena_bytes) {
      memory.evaluation_arena = ranks * evaluation->plan.arena_bytes;
    }
  }
  const DataSettings& d = assembly.data;
  memory.ring = ranks * static_cast<std::size_t>(d.prefetch * d.batch * assembly.run.accumulate *
                                                 d.image_size * d.image_size * 3);
  const PlannedStates states(*training.graph);
  const bool copied = assembly.checkpoint.asynchronous && assembly.checkpoint.every > 0;
  memory.checkpoint = CheckpointSaver::copy_bytes(states, 0, static_cast<int>(all), copied);
  // Without a copy states are written in parts; those in an order of the device's own as a whole.
  for (const Graph::State& state : training.graph->states()) {
    const std::size_t bytes = state.spec.type.bytes();
    const bool whole = !state.value.type().layout.empty();
    memory.checkpoint =
        std::max(memory.checkpoint, whole ? bytes : std::min(bytes, largest_part_bytes));
  }
  memory.checkpoint *= ranks;
  if (process) {
    memory.process = *process;
    return;
  }
  memory.process = memory_bytes() + first_use_bytes;
  memory.process += assembly.device->overhead_bytes(training);
  if (evaluation) memory.process += assembly.device->overhead_bytes(*evaluation);
}

}  // namespace ftrain::launch
