// Class centers under AdamW, on the CPU device: against a dense implementation in double, corrected
// by the step's number and by each row's own; and whole trainings with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "ftrain/base/error.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/model/margin_head.h"
#include "tests/plugins/parallelism/dense_step.h"
#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int64_t width = 20, batch = 8, classes = 61;
constexpr std::uint64_t seed = 77;
constexpr int steps = 5;

struct Case {
  std::string kernels, plugin, keys;
  double sample_rate = 1;
  bool all_rows = false, by_row = false;
  int ranks = 1;

  std::string text() const {
    return kernels + " " + plugin + " {" + keys + "}" + (by_row ? " by row" : "") + " on " +
           std::to_string(ranks);
  }
};

using States = std::map<std::string, dense::Matrix>;

struct Problem {
  dense::Matrix weight;
  std::vector<dense::Matrix> x;
  std::vector<std::vector<std::int64_t>> labels;

  Problem() {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;  // exact in f32
    const auto draw = [&](std::int64_t elements) {
      dense::Matrix m(static_cast<std::size_t>(elements));
      for (double& v : m) v = static_cast<double>(normal(random));
      return m;
    };
    weight = draw(classes * width);
    for (int t = 0; t < steps; ++t) {
      x.push_back(draw(batch * width));
      labels.emplace_back();
      for (std::int64_t b = 0; b < batch; ++b) {
        labels.back().push_back(static_cast<std::int64_t>(random() % classes));
      }
    }
  }
};

// PyTorch's rule, row by row.
States dense_states(const Problem& p, const Case& c) {
  const double beta1 = 0.9, beta2 = 0.99, eps = 0.01, rate = 0.0625, decay = 0.25;
  States made{{"", p.weight},
              {".exp_avg", dense::Matrix(p.weight.size(), 0)},
              {".exp_avg_sq", dense::Matrix(p.weight.size(), 0)}};
  dense::Matrix counts(classes, 0);
  for (int t = 0; t < steps; ++t) {
    const auto s = static_cast<std::size_t>(t);
    dense::Step step{batch, width, classes, {.scale = 8, .m3 = 0.25}};
    step.all_rows = c.all_rows;
    if (c.sample_rate < 1) {
      step.sampled = dense::sample(classes, c.sample_rate, seed, t, p.labels[s]);
    }
    const auto update = [&](std::size_t row, const double* gradient, double* w) {
      counts[row] += 1;
      const double number = c.by_row ? counts[row] : t + 1;
      const double first = 1 - std::pow(beta1, number), second = 1 - std::pow(beta2, number);
      double* const m = &made[".exp_avg"][row * width];
      double* const v = &made[".exp_avg_sq"][row * width];
      for (std::size_t d = 0; d < width; ++d) {
        w[d] *= 1 - rate * decay;
        m[d] = beta1 * m[d] + (1 - beta1) * gradient[d];
        v[d] = beta2 * v[d] + (1 - beta2) * gradient[d] * gradient[d];
        w[d] -= rate / first * m[d] / (std::sqrt(v[d] / second) + eps);
      }
    };
    dense::run_with(step, p.x[s], p.labels[s], made[""], update);
  }
  if (c.by_row) made[".step"] = counts;
  return made;
}

template <class T>
void run_rank(const Problem& p, const Job& job, int rank, int ranks, Communicator* communicator,
              std::mutex& mutex, States& made) {
  const std::int64_t own = batch / ranks;
  std::unique_lock lock(mutex);
  const auto device = plugins().create<Device>(job);
  const auto parallelism = plugins().create<Parallelism>(job);
  const auto optimizer = plugins().create<Optimizer>(job);
  const auto margin = plugins().create<MarginHead>(job)->margin();
  lock.unlock();
  device->open(rank, ranks);
  Graph graph;
  const Value x = graph.input("x", {dtype_of<T>, {own, width}});
  const Value label = graph.input("label", {DType::i64, {own}});
  const Value rate = graph.input("rate", {DType::f32, {}});
  const Value step = graph.input("step", {DType::i64, {}});
  PartialGradients so_far;
  const StepBuild build{graph, rank, ranks, own, classes, seed, step, rate, *optimizer, margin};
  const auto centers = parallelism->class_centers(build, x, label, so_far);
  graph.fetch("dx", gradients(graph, centers.seeds, std::vector<Value>{x})[0]);
  const auto store = device->make_store();
  const auto program =
      device->compile(device->prepare(graph, store.get(), communicator), *store, communicator);
  const StateSpec spec = graph.state_of(graph.find_state("centers.weight"))->spec;
  const auto first = spec.first_row * width, count = spec.type.shape[0] * width;
  store->write("centers.weight",
               std::vector<T>(p.weight.begin() + first, p.weight.begin() + first + count).data());
  for (std::int64_t t = 0; t < steps; ++t) {
    const auto s = static_cast<std::size_t>(t);
    const auto begin = p.x[s].begin() + rank * own * width;
    const float factor = 0.0625f;
    program->write("x", std::vector<T>(begin, begin + own * width).data());
    program->write("label", p.labels[s].data() + rank * own);
    program->write("rate", &factor);
    program->write("step", &t);
    program->run();
  }
  lock.lock();
  const auto take = [&]<class E>(const std::string& slot, std::int64_t each, E) {
    std::vector<E> values(static_cast<std::size_t>(spec.type.shape[0] * each));
    store->read("centers.weight" + slot, values.data());
    dense::Matrix& whole = made[slot];
    whole.resize(static_cast<std::size_t>(classes * each));
    std::copy(values.begin(), values.end(), whole.begin() + spec.first_row * each);
  };
  for (const char* slot : {"", ".exp_avg", ".exp_avg_sq"}) take(slot, width, T());
  if (optimizer->counts_rows()) take(".step", 1, float());
}

template <class T>
States program_states(const Problem& p, const Case& c) {
  std::vector<Job> jobs;
  for (int rank = 0; rank < c.ranks; ++rank) {
    jobs.push_back(Job::parse(
        "[device]\nplugin = \"cpu\"\nthreads = 2\nkernels = \"" + c.kernels +
        "\"\n[head]\nplugin = \"cosface\"\nmargin = 0.25\nscale = 8.0\n[parallelism]\nplugin = \"" +
        c.plugin + "\"\n" + c.keys +
        "\n[optimizer]\nplugin = \"adamw\"\nweight_decay = 0.25\nbeta2 = 0.99\neps = 0.01\n" +
        "center_steps = \"" + (c.by_row ? "row" : "global") + "\"\n"));
  }
  States made;
  std::mutex mutex;
  on_ranks(c.ranks, [&](int rank, Communicator* communicator) {
    run_rank<T>(p, jobs[static_cast<std::size_t>(rank)], rank, c.ranks, communicator, mutex, made);
  });
  return made;
}

void compare(const States& got, const States& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [slot, values] : want) {
    const dense::Matrix& others = got.at(slot);
    ASSERT_EQ(others.size(), values.size()) << slot;
    double worst = 0, largest = 1e-30;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double difference = std::abs(others[i] - values[i]);
      if (!(difference <= worst)) worst = difference;
      largest = std::max(largest, std::abs(values[i]));
    }
    EXPECT_LT(worst / largest, tolerance) << "centers.weight" << slot;
  }
}

TEST(AdamWCenters, FollowTheDenseRule) {
  const Problem p;
  for (const auto& [keys, rate, all_rows] : {std::tuple{"sample_rate = 1.0", 1.0, false},
                                             {"sample_rate = 0.1", 0.1, false},
                                             {"sample_rate = 0.1\nrows = \"all\"", 0.1, true}}) {
    for (const bool by_row : {false, true}) {
      for (const int ranks : {1, 2}) {
        Case c{"reference", "partial_fc", keys, rate, all_rows, by_row, ranks};
        const States want = dense_states(p, c);
        SCOPED_TRACE(c.text());
        compare(program_states<double>(p, c), want, 1e-9);
        compare(program_states<float>(p, c), want, 2e-4);
        c.kernels = "auto";
        SCOPED_TRACE("tiles");
        compare(program_states<float>(p, c), want, 2e-4);
      }
    }
  }
}

TEST(AdamWCenters, DifferByWhoseNumberCorrectsThem) {
  const Problem p;
  Case c{"auto", "partial_fc", "sample_rate = 0.1", 0.1};
  const States global = program_states<float>(p, c);
  c.by_row = true;
  EXPECT_NE(program_states<float>(p, c).at(""), global.at(""));
  // Where every row moves in every step the numbers are the same.
  c = {"auto", "model_parallel", ""};
  const States every = program_states<float>(p, c);
  c.by_row = true;
  States counted = program_states<float>(p, c);
  EXPECT_EQ(counted.extract(".step").mapped(), dense::Matrix(classes, steps));
  EXPECT_EQ(counted, every);
}

TEST(AdamWCenters, OfDataParallelRanksAreUpdatedByTheStep) {
  const Problem p;
  for (const int ranks : {1, 2}) {
    const Case c{"auto", "data_parallel", "", 1, false, false, ranks};
    SCOPED_TRACE(c.text());
    compare(program_states<float>(p, c), dense_states(p, c), 2e-4);
  }
  const Case counted{"auto", "data_parallel", "", 1, false, true, 1};
  compare(program_states<float>(p, counted), dense_states(p, counted), 2e-4);
  TinyJob job{.ranks = 2, .steps = 1, .parallelism = "plugin = \"data_parallel\""};
  job.optimizer_plugin = "adamw";
  job.optimizer = "center_steps = \"row\"";
  EXPECT_THAT([&] { run_tiny(job); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("data_parallel on several ranks"),
                                               HasSubstr("center_steps = \"global\""),
                                               HasSubstr("model_parallel"))));
}

// Whole trainings, the backbone by AdamW too.
TinyJob tiny(const std::string& more = "") {
  TinyJob job{.batch = 16, .steps = 10, .rate = 0.002};
  job.parallelism = "plugin = \"partial_fc\"\nsample_rate = 0.4\nbatch_norm = 4" + more;
  job.optimizer_plugin = "adamw";
  job.optimizer = "eps = 1e-3\ncenter_steps = \"row\"";
  return job;
}

TEST(AdamWTraining, CountsARowWhereItIsSampled) {
  const TinyRun run = run_tiny(tiny());
  std::vector<float> counts(21, 0);
  for (const auto& rows : run.sampled) {
    for (const std::int64_t row : rows) counts[static_cast<std::size_t>(row)] += 1;
  }
  EXPECT_EQ(run.states.at("centers.weight.step"), counts);
}

TEST(AdamWTraining, IsTheSameOnAnyNumberOfRanks) {
  for (const bool parts : {false, true}) {
    const TinyRun one = run_tiny(tiny());
    TinyJob job = tiny();
    job.batch = 4;
    job.parts = parts ? 4 : 1;
    job.ranks = parts ? 1 : 4;
    const TinyRun other = run_tiny(job);
    expect_same_losses(other, one, 1e-3);
    EXPECT_EQ(other.sampled, one.sampled);
    EXPECT_EQ(other.states.at("centers.weight.step"), one.states.at("centers.weight.step"));
  }
}

TEST(AdamWTraining, TakesCentersInBf16AndInTheHostsMemory) {
  for (const std::string rows : {"", "\nrows = \"all\""}) {
    const TinyRun fp32 = run_tiny(tiny(rows));
    const TinyRun bf16 = run_tiny(tiny(rows + "\ncenters = \"bf16\""));
    EXPECT_NE(bf16.loss, fp32.loss);
    expect_same_losses(bf16, fp32, 2e-2);
    EXPECT_EQ(bf16.states.at("centers.weight.step"), fp32.states.at("centers.weight.step"));
    const TinyRun host = run_tiny(tiny(rows + "\ncenters = \"bf16\"\ncenters_memory = \"host\""));
    EXPECT_EQ(host.states, bf16.states);
  }
}

}  // namespace
}  // namespace ftrain
