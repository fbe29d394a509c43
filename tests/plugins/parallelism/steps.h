// Steps of a tiny job, fed by hand: any number of ranks, parts and classes in milliseconds.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/checkpoint/state.h"
#include "core/train/assembly.h"
#include "core/train/step_graph.h"
#include "ftrain/device/device.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/model/layers.h"
#include "tests/plugins/parallelism/ranks.h"

namespace ftrain {

// Everything that a step of a real network has, in few numbers.
struct TinyBackbone final : Backbone {
  void configure(Keys&) override {}
  Value forward(const Scope& scope, Value x) const override {
    x = layers::conv2d(scope, "conv", x, 8, 3, {.stride = 2, .padding = 1},
                       {Initializer::Kind::normal, 0, 0.2});
    x = layers::batch_norm(scope, "norm", x);
    x = ops::add(x, ops::scale(ops::mul(x, x), 0.2));  // without a kink, which amplifies rounding
    x = layers::dropout(scope, "dropout", ops::flatten(x), 0.2);
    x = layers::linear(scope, "embedding", x, 16, false, {Initializer::Kind::normal, 0, 0.1});
    return layers::batch_norm(scope, "features", x);
  }
};

inline Registry& tiny_plugins() {
  static const bool added = [] {
    plugins().add<Backbone, TinyBackbone>("tiny", "of a test");
    return true;
  }();
  static_cast<void>(added);
  return plugins();
}

// Bytes that a rank gave to collectives, by their names.
class CountingCommunicator final : public Communicator {
 public:
  explicit CountingCommunicator(Communicator& inner) : inner_(inner) {}
  void configure(Keys&) override {}
  void connect(const RankPlace&) override {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const RankPlace& place() const override { return inner_.place(); }
  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override {
    counted("all_reduce", static_cast<std::size_t>(count) * size_of(dtype));
    inner_.all_reduce(data, count, dtype, reduction);
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    counted("all_gather", bytes);
    inner_.all_gather(in, out, bytes);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override {
    counted("reduce_scatter", static_cast<std::size_t>(count) * size_of(dtype));
    inner_.reduce_scatter(in, out, count, dtype);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    inner_.broadcast(data, bytes, root);
  }
  void barrier() override { inner_.barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return inner_.split(color, key);
  }
  void abort(const std::string& reason) override { inner_.abort(reason); }

  std::map<std::string, std::size_t> bytes, calls;

 private:
  void counted(const std::string& name, std::size_t count) {
    const std::lock_guard lock(mutex_);
    bytes[name] += count;
    ++calls[name];
  }
  Communicator& inner_;
  std::mutex mutex_;
};

struct TinyJob {
  int ranks = 1;
  std::int64_t parts = 1, batch = 4;  // of a part of a rank
  int steps = 20;
  std::int64_t classes = 21;
  std::string head = "plugin = \"cosface\"\nscale = 8.0\nmargin = 0.2";
  std::string parallelism = "plugin = \"model_parallel\"";
  double rate = 0.02, flip = 0.5;
  std::string device = {}, optimizer = {};  // optimizer's keys
  std::string optimizer_plugin = "sgd";
  std::optional<LossScaling> loss_scaling = {};  // as if the device asked for it
  bool overflows = false;                        // a step may be skipped
  std::int64_t first_step = 0;
  std::map<std::string, std::vector<float>> states = {};  // to begin with; of one rank

  std::string text() const {
    return "[device]\nplugin = \"cpu\"\nthreads = 1\nautotune = false\n" + device +
           "\n[backbone]\nplugin = \"tiny\"\n[head]\n" + head + "\n[parallelism]\n" + parallelism +
           "\n[optimizer]\nplugin = \"" + optimizer_plugin + "\"\n" + optimizer +
           "\n[schedule]\nplugin = \"cosine\"\n[dataset]\nplugin = \"synthetic\"\n"
           "classes = 1000\nimage_size = 8\nflip = " +
           std::to_string(flip) + "\nbatch = " + std::to_string(batch) +
           "\n[run]\nsteps = 1\naccumulate = " + std::to_string(parts) +
           "\n[observers]\nuse = []\n";
  }
};

// A device that wants the loss scaled, whatever it computes in.
class ScaledDevice final : public Device {
 public:
  ScaledDevice(std::unique_ptr<Device> inner, const LossScaling& scaling)
      : inner_(std::move(inner)), scaling_(scaling) {}
  void configure(Keys& keys) override { inner_->configure(keys); }
  void open(int rank, int ranks) override { inner_->open(rank, ranks); }
  std::string summary() const override { return inner_->summary(); }
  const KernelList& kernels() const override { return inner_->kernels(); }
  std::optional<LossScaling> loss_scaling() const override { return scaling_; }
  std::unique_ptr<StateStore> make_store() override { return inner_->make_store(); }
  void add_kernel(const KernelDef& def) override { inner_->add_kernel(def); }
  std::unique_ptr<CompileTarget> target(const Graph& program, Communicator* communicator) override {
    return inner_->target(program, communicator);
  }
  std::unique_ptr<Executable> compile(Program program, StateStore& store,
                                      Communicator* communicator) override {
    return inner_->compile(std::move(program), store, communicator);
  }

 private:
  std::unique_ptr<Device> inner_;
  LossScaling scaling_;
};

struct TinyRun {
  std::vector<double> loss, gradient_norm, ok;
  std::map<std::string, std::vector<float>> states;  // statistics: of the first rank
  std::vector<std::set<std::int64_t>> sampled;       // global classes of each step
  std::array<float, 2> notes{};                      // of the last step, summed over the ranks
  std::size_t arena_bytes = 0, gradient_bytes = 0;   // of the first rank
  std::map<std::string, std::size_t> bytes, calls;   // of the first rank's collectives
};

// Of sample `n` of the job: the same wherever it is.
inline void fill_sample(std::int64_t n, std::int64_t classes, std::vector<std::uint8_t>& image,
                        std::vector<std::int64_t>& labels) {
  std::mt19937 random(static_cast<std::uint32_t>(n + 1));
  const auto label = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(classes));
  labels.push_back(label);
  // Classes differ in brightness, so that there is something to learn.
  for (int i = 0; i < 8 * 8 * 3; ++i) {
    image.push_back(
        static_cast<std::uint8_t>((random() + 40 * static_cast<unsigned>(label)) % 256));
  }
}

// The local rows that each step samples can be read as "rows".
inline void fetch_rows(Graph& graph) {
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    if (graph.node(i).op->name == "sample_classes") graph.fetch("rows", {&graph, i, 0});
  }
}

inline void run_tiny_rank(const TinyJob& job, const Job& source, int rank,
                          Communicator* communicator, std::mutex& mutex, TinyRun& run) {
  std::unique_ptr<Assembly> assembly;
  {
    const std::lock_guard lock(mutex);
    assembly = std::make_unique<Assembly>(source, tiny_plugins());
    if (job.loss_scaling) {
      assembly->device =
          std::make_unique<ScaledDevice>(std::move(assembly->device), *job.loss_scaling);
    }
  }
  std::unique_ptr<CountingCommunicator> counting;
  if (communicator != nullptr) {
    counting = std::make_unique<CountingCommunicator>(*communicator);
    communicator = counting.get();
  }
  Device& device = *assembly->device;
  device.open(rank, job.ranks);
  const auto store = device.make_store();
  const auto graph = training_graph(*assembly, job.classes, rank, job.ranks);
  fetch_rows(*graph);
  const auto program =
      device.compile(device.prepare(*graph, store.get(), communicator), *store, communicator);
  initialize(*store, assembly->seed());
  for (const auto& [name, values] : job.states) store->write(name, values.data());
  const std::int64_t samples = job.parts * job.batch;  // of a rank in a step
  if (counting) counting->bytes.clear(), counting->calls.clear();
  for (int done = 0; done < job.steps; ++done) {
    const std::int64_t step = job.first_step + done;
    std::vector<std::uint8_t> images;
    std::vector<std::int64_t> labels;
    const std::int64_t first = (step * job.ranks + rank) * samples;
    for (std::int64_t n = first; n < first + samples; ++n) {
      fill_sample(n, job.classes, images, labels);
    }
    const auto rate = static_cast<float>(job.rate);
    program->write("image", images.data());
    program->write("label", labels.data());
    program->write("rate", &rate);
    program->write("step", &step);
    const float notes[2] = {static_cast<float>(rank), 1};
    if (job.ranks > 1) program->write("notes", notes);
    program->run();
    float loss = 0, norm = 0, ok = 0;
    program->read("loss", &loss);
    program->read("gradient_norm", &norm);
    program->read("ok", &ok);
    if (!job.overflows) {
      EXPECT_EQ(ok, 1.0f);
    }
    const std::lock_guard lock(mutex);
    if (rank == 0) {
      run.loss.push_back(static_cast<double>(loss));
      run.gradient_norm.push_back(static_cast<double>(norm));
      run.ok.push_back(static_cast<double>(ok));
      if (job.ranks > 1) program->read("notes", run.notes.data());
    }
    run.sampled.resize(static_cast<std::size_t>(job.steps));
    for (const Graph::Named& fetch : graph->fetches()) {
      if (fetch.name != "rows") continue;
      std::vector<std::int32_t> rows(static_cast<std::size_t>(fetch.value.shape()[0]));
      program->read("rows", rows.data());
      const std::int64_t first =
          graph->state_of(graph->find_state("centers.weight"))->spec.first_row;
      for (const std::int32_t row : rows) {
        if (row >= 0) run.sampled[static_cast<std::size_t>(done)].insert(first + row);
      }
    }
  }
  const std::lock_guard lock(mutex);
  if (rank == 0) {
    run.arena_bytes = program->program().plan.arena_bytes;
    if (counting) run.bytes = counting->bytes, run.calls = counting->calls;
  }
  for (const StateStore::Entry& entry : store->entries()) {
    const TensorType& type = entry.spec.type;
    if (rank == 0 && entry.spec.role == StateSpec::Role::parameter) {
      run.gradient_bytes += type.bytes();
    }
    const std::vector<float> values = read_floats(*store, entry.spec);
    std::vector<float>& whole = run.states[entry.spec.name];
    if (entry.spec.rows == 0) {
      if (rank == 0) whole = values;
    } else {
      const std::int64_t width = type.shape.rank() > 1 ? type.shape[1] : 1;
      whole.resize(static_cast<std::size_t>(entry.spec.rows * width));
      std::copy(values.begin(), values.end(), whole.begin() + entry.spec.first_row * width);
    }
  }
}

inline TinyRun run_tiny(const TinyJob& job) {
  std::vector<Job> sources;
  for (int rank = 0; rank < job.ranks; ++rank) sources.push_back(Job::parse(job.text()));
  TinyRun run;
  std::mutex mutex;
  on_ranks(job.ranks, [&](int rank, Communicator* communicator) {
    run_tiny_rank(job, sources[static_cast<std::size_t>(rank)], rank, communicator, mutex, run);
  });
  return run;
}

inline void expect_same_losses(const TinyRun& a, const TinyRun& b, double tolerance) {
  ASSERT_EQ(a.loss.size(), b.loss.size());
  for (std::size_t i = 0; i < a.loss.size(); ++i) {
    EXPECT_NEAR(a.loss[i], b.loss[i], tolerance * std::abs(b.loss[i])) << "step " << i + 1;
  }
}

// Parameters and momentum; running statistics too where they must agree. By tensors, as a whole.
inline void expect_same_states(const TinyRun& a, const TinyRun& b, double tolerance,
                               bool statistics) {
  ASSERT_EQ(a.states.size(), b.states.size());
  for (const auto& [name, values] : a.states) {
    if (!statistics && name.find(".running_") != std::string::npos) continue;
    const std::vector<float>& others = b.states.at(name);
    ASSERT_EQ(values.size(), others.size()) << name;
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double x = static_cast<double>(values[i]), y = static_cast<double>(others[i]);
      difference += (x - y) * (x - y);
      size += y * y;
    }
    EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(size)) << name;
  }
}

}  // namespace ftrain
