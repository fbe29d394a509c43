// The class-center step of every strategy, on the CPU device at 1, 2 and 4 ranks, against a dense
// implementation in double (dense_step.h): loss, gradient of the embedding, class centers,
// momentum.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "ftrain/device/device.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/model/parallelism.h"
#include "ftrain/ops.h"
#include "tests/plugins/parallelism/dense_step.h"
#include "tests/plugins/parallelism/ranks.h"

namespace ftrain {
namespace {

constexpr std::int64_t width = 20, global_batch = 8;
constexpr std::uint64_t seed = 77;
constexpr int steps = 3;

struct HeadCase {
  const char *name, *keys;
  dense::Head formula;
};

// A margin in a job is a float to the functor.
double f(double value) {
  return static_cast<double>(static_cast<float>(value));
}

std::vector<HeadCase> heads() {
  return {
      {"softmax", "", {.normalized = false, .scale = 1}},
      {"normalized_softmax", "scale = 16.0", {.scale = 16}},
      {"cosface", "margin = 0.4\nscale = 24.0", {.scale = 24, .m3 = f(0.4)}},
      {"arcface", "margin = 0.5\nscale = 24.0", {.scale = 24, .m2 = f(0.5)}},
      {"arcface",
       "margin = 0.5\nscale = 24.0\ngradient = \"straight_through\"",
       {.straight_through = true, .scale = 24, .m2 = f(0.5)}},
      {"combined",
       "m1 = 1.1\nm2 = 0.3\nm3 = 0.2\nscale = 24.0",
       {.scale = 24, .m1 = f(1.1), .m2 = f(0.3), .m3 = f(0.2)}},
      {"cosface",
       "margin = 0.2\nscale = 24.0\ninterclass_filtering_threshold = 0.2",
       {.scale = 24, .m3 = f(0.2), .filter = 0.2}},
  };
}

struct Strategy {
  const char *name, *keys;
  double sample_rate = 1;
  bool all_rows = false;
  std::int64_t parts = 1;  // of a step, as gradient accumulation makes them
};

struct Machine {
  std::string kernels;  // "reference": plain loops, "auto": tiles
  DType dtype;
  double tolerance;
};

// The same numbers whatever the ranks: three batches with many repeats among the labels.
struct Problem {
  std::int64_t classes;
  dense::Matrix weight;
  std::vector<dense::Matrix> x;
  std::vector<std::vector<std::int64_t>> labels;

  explicit Problem(std::int64_t count) : classes(count) {
    std::mt19937 random(static_cast<std::uint32_t>(count));
    std::normal_distribution<double> normal;
    const auto draw = [&](std::int64_t elements) {
      dense::Matrix m(static_cast<std::size_t>(elements));
      for (double& v : m) v = f(normal(random));  // exact in f32
      return m;
    };
    weight = draw(classes * width);
    for (int t = 0; t < steps; ++t) {
      x.push_back(draw(global_batch * width));
      auto& l = labels.emplace_back();
      for (std::int64_t b = 0; b < global_batch; ++b) {
        l.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(classes)));
      }
      l[1] = l[0];
      l[2] = classes - 1;
    }
  }
};

struct Outcome {
  std::vector<double> loss;
  std::vector<dense::Matrix> dx;
  dense::Matrix weight, velocity;
};

Outcome dense_outcome(const Problem& p, const HeadCase& head, const Strategy& strategy) {
  Outcome out{{}, {}, p.weight, dense::Matrix(p.weight.size(), 0)};
  for (int t = 0; t < steps; ++t) {
    const auto& labels = p.labels[static_cast<std::size_t>(t)];
    dense::Step step{global_batch, width, p.classes, head.formula};
    step.rate = f(0.5);
    step.momentum = f(0.9);
    step.decay = 0.01;
    step.all_rows = strategy.all_rows;
    if (strategy.sample_rate < 1) {
      step.sampled = dense::sample(p.classes, strategy.sample_rate, seed, t, labels);
    }
    const auto made =
        dense::run(step, p.x[static_cast<std::size_t>(t)], labels, out.weight, out.velocity);
    out.loss.push_back(made.loss);
    out.dx.push_back(made.dx);
  }
  return out;
}

template <class T>
std::vector<T> narrowed(const dense::Matrix& m, std::int64_t first, std::int64_t count) {
  return {m.begin() + first, m.begin() + first + count};
}
template <class T>
void put(dense::Matrix& m, std::int64_t first, const std::vector<T>& part) {
  std::copy(part.begin(), part.end(), m.begin() + first);
}

// One rank's three steps; fills its part of `out`.
template <class T>
void run_rank(const Problem& p, const Strategy& strategy, Device& device,
              const Parallelism& parallelism, const Optimizer& optimizer,
              std::shared_ptr<const Margin> margin, int rank, int ranks, Communicator* communicator,
              Outcome& out) {
  const std::int64_t batch = global_batch / ranks, part = batch / strategy.parts;
  Graph graph;
  const Value label = graph.input("label", {DType::i64, {batch}});
  const Value rate = graph.input("rate", {DType::f32, {}});
  const Value step = graph.input("step", {DType::i64, {}});
  PartialGradients so_far;
  const auto name = [](const char* what, std::int64_t j) { return what + std::to_string(j); };
  for (std::int64_t j = 0; j < strategy.parts; ++j) {
    const Value x = graph.input(name("x", j), {dtype_of<T>, {part, width}});
    const StepBuild build{graph, rank,      ranks,  part,           p.classes, seed, step,
                          rate,  optimizer, margin, strategy.parts, j,         label};
    const ClassCenterStep made =
        parallelism.class_centers(build, x, ops::slice_rows(label, j * part, part), so_far);
    graph.fetch(name("dx", j), gradients(graph, made.seeds, std::vector<Value>{x})[0]);
    if (j + 1 == strategy.parts) graph.fetch("ok", made.ok);
  }
  graph.fetch("loss", so_far.loss);
  const auto store = device.make_store();
  const auto program =
      device.compile(device.prepare(graph, store.get(), communicator), *store, communicator);
  const StateSpec& spec = graph.state_of(graph.find_state("centers.weight"))->spec;
  const std::int64_t first = spec.first_row * width, count = spec.type.shape.elements();
  store->write("centers.weight", narrowed<T>(p.weight, first, count).data());

  for (int t = 0; t < steps; ++t) {
    const auto s = static_cast<std::size_t>(t);
    const float factor = 0.5f;
    const std::int64_t number = t, mine = rank * batch * width;
    for (std::int64_t j = 0; j < strategy.parts; ++j) {
      const auto own = narrowed<T>(p.x[s], mine + j * part * width, part * width);
      program->write(name("x", j), own.data());
    }
    program->write("label", p.labels[s].data() + rank * batch);
    program->write("rate", &factor);
    program->write("step", &number);
    program->run();
    T loss = 0, ok = 0;
    std::vector<T> dx(static_cast<std::size_t>(part * width));
    program->read("loss", &loss);
    program->read("ok", &ok);
    EXPECT_EQ(ok, T(1));
    if (rank == 0) out.loss[s] = static_cast<double>(loss);
    for (std::int64_t j = 0; j < strategy.parts; ++j) {
      program->read(name("dx", j), dx.data());
      put(out.dx[s], mine + j * part * width, dx);
    }
  }
  std::vector<T> own(static_cast<std::size_t>(count));
  if (strategy.name != std::string("data_parallel") || rank == 0) {
    store->read("centers.weight", own.data());
    put(out.weight, first, own);
    store->read("centers.weight.momentum", own.data());
    put(out.velocity, first, own);
  }
}

Outcome program_outcome(const Problem& p, const HeadCase& head, const Strategy& strategy,
                        const Machine& machine, int ranks) {
  Outcome out{std::vector<double>(steps),
              std::vector<dense::Matrix>(steps, dense::Matrix(global_batch * width)),
              dense::Matrix(p.weight.size()), dense::Matrix(p.weight.size())};
  struct Parts {
    std::unique_ptr<Device> device;
    std::unique_ptr<Parallelism> parallelism;
    std::unique_ptr<Optimizer> optimizer;
    std::shared_ptr<const Margin> margin;
  };
  std::vector<Parts> parts;
  for (int rank = 0; rank < ranks; ++rank) {
    const Job job = Job::parse(
        "[device]\nplugin = \"cpu\"\nthreads = 2\nkernels = \"" + machine.kernels +
        "\"\n[head]\nplugin = \"" + head.name + "\"\n" + head.keys +
        "\n[parallelism]\nplugin = \"" + strategy.name + "\"\n" + strategy.keys +
        "\n[optimizer]\nplugin = \"sgd\"\nrate = 0.5\nmomentum = 0.9\nweight_decay = 0.01\n");
    Registry& r = plugins();
    parts.push_back({r.create<Device>(job), r.create<Parallelism>(job), r.create<Optimizer>(job),
                     r.create<MarginHead>(job)->margin()});
    parts.back().device->open(rank, ranks);
  }
  on_ranks(ranks, [&](int rank, Communicator* communicator) {
    Parts& own = parts[static_cast<std::size_t>(rank)];
    const auto run = machine.dtype == DType::f64 ? run_rank<double> : run_rank<float>;
    run(p, strategy, *own.device, *own.parallelism, *own.optimizer, own.margin, rank, ranks,
        communicator, out);
  });
  return out;
}

// The largest difference over the largest element.
double difference(const dense::Matrix& a, const dense::Matrix& b) {
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]);
    if (!(d <= worst)) worst = d;
    largest = std::max(largest, std::abs(b[i]));
  }
  return worst / largest;
}

void compare(const Problem& p, const HeadCase& head, const Strategy& strategy,
             const Machine& machine, int ranks) {
  SCOPED_TRACE(std::string(head.name) + " {" + head.keys + "} " + strategy.name + " {" +
               strategy.keys + "} in " + std::to_string(strategy.parts) + " parts " +
               machine.kernels + " " + std::string(name_of(machine.dtype)) + ", " +
               std::to_string(p.classes) + " classes on " + std::to_string(ranks) + " ranks");
  const Outcome want = dense_outcome(p, head, strategy);
  const Outcome got = program_outcome(p, head, strategy, machine, ranks);
  const double tolerance = machine.tolerance;
  for (std::size_t t = 0; t < steps; ++t) {
    EXPECT_NEAR(got.loss[t], want.loss[t], tolerance * std::max(1.0, want.loss[t])) << "step " << t;
    EXPECT_LT(difference(got.dx[t], want.dx[t]), tolerance) << "step " << t;
  }
  EXPECT_LT(difference(got.weight, want.weight), tolerance);
  EXPECT_LT(difference(got.velocity, want.velocity), tolerance);
}

const Strategy every_class[] = {
    {"data_parallel", ""}, {"model_parallel", ""}, {"partial_fc", "sample_rate = 1.0"}};
const Strategy sampled[] = {{"partial_fc", "sample_rate = 0.1", 0.1},
                            {"partial_fc", "sample_rate = 0.1\nrows = \"all\"", 0.1, true}};
const Machine machines[] = {
    {"reference", DType::f64, 1e-9}, {"reference", DType::f32, 2e-4}, {"auto", DType::f32, 2e-4}};

class Strategies : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Strategies, testing::Values(1, 2, 4));

TEST_P(Strategies, FollowsTheDenseOneWithEveryClass) {
  const Problem uneven(37);
  for (const HeadCase& head : heads()) {
    for (const Strategy& strategy : every_class) {
      for (const Machine& machine : machines) {
        compare(uneven, head, strategy, machine, GetParam());
      }
    }
  }
}

TEST_P(Strategies, FollowsTheDenseOneOnASample) {
  for (const std::int64_t classes : {37, 601}) {
    const Problem p(classes);
    for (const HeadCase& head : heads()) {
      for (const Strategy& strategy : sampled) {
        for (const Machine& machine : machines) compare(p, head, strategy, machine, GetParam());
      }
    }
  }
}

TEST_P(Strategies, WalksManyTiles) {
  const Problem p(3001);  // several tiles a thread, the last one cut
  const Machine tiled = machines[2];
  for (const HeadCase& head : {heads()[0], heads()[5], heads()[6]}) {
    for (const Strategy& strategy : every_class) compare(p, head, strategy, tiled, GetParam());
    for (const Strategy& strategy : sampled) compare(p, head, strategy, tiled, GetParam());
  }
}

TEST_P(Strategies, AddUpThePartsOfAStep) {
  for (const std::int64_t classes : {37, 601}) {
    const Problem p(classes);
    for (const HeadCase& head : {heads()[0], heads()[3], heads()[6]}) {
      for (Strategy strategy : {every_class[0], every_class[1], sampled[0], sampled[1]}) {
        strategy.parts = 2;
        for (const Machine& machine : machines) compare(p, head, strategy, machine, GetParam());
      }
    }
  }
}

// Near their own class centers, where the margin takes e^20 off a probability.
TEST(ClassCenterStep, KeepsItsDigitsInATrainedNetwork) {
  Problem p(37);
  for (std::size_t t = 0; t < steps; ++t) {
    for (std::size_t i = 0; i < p.x[t].size(); ++i) {
      const auto row = static_cast<std::size_t>(p.labels[t][i / width]);
      p.x[t][i] = f(0.7 * p.x[t][i] + p.weight[row * width + i % width]);
    }
  }
  const HeadCase head{"cosface", "margin = 0.4\nscale = 64.0", {.scale = 64, .m3 = f(0.4)}};
  for (const Strategy& strategy : {every_class[0], every_class[1], sampled[1]}) {
    for (const Machine& machine : machines) compare(p, head, strategy, machine, 2);
  }
}

TEST(ClassCenterStep, WorksWithFewerClassesThanRanks) {
  const Problem p(3);
  for (const Strategy& strategy : every_class) {
    for (const Machine& machine : machines) compare(p, heads()[2], strategy, machine, 4);
  }
  for (const Machine& machine : machines) compare(p, heads()[2], sampled[0], machine, 4);
}

TEST(PartialFc, TakesAnExpectedNumberInsteadOfARate) {
  const Problem p(601);
  compare(p, heads()[3], {"partial_fc", "num_sample = 60", 60.0 / 601}, machines[2], 2);
  compare(p, heads()[3], {"partial_fc", "num_sample = 1000"}, machines[2], 2);
}

TEST(PartialFc, AtRateZeroTakesTheBatchsClassesAlone) {
  const Problem p(601);
  for (const Machine& machine : machines) {
    compare(p, heads()[3], {"partial_fc", "sample_rate = 0.0", 0.0}, machine, 2);
  }
}

TEST(ClassCenterStep, ALossThatIsNotFiniteChangesNothing) {
  Problem p(37);
  p.x[0][3] = std::numeric_limits<double>::quiet_NaN();
  for (const Strategy& strategy : {every_class[0], every_class[1], sampled[1]}) {
    for (const auto& [machine, parts] :
         {std::pair{machines[0], 1}, {machines[2], 1}, {machines[0], 2}, {machines[2], 2}}) {
      SCOPED_TRACE(std::string(strategy.name) + " " + machine.kernels + " in " +
                   std::to_string(parts) + " parts");
      const Job job =
          Job::parse("[device]\nplugin = \"cpu\"\nthreads = 2\nkernels = \"" + machine.kernels +
                     "\"\n[head]\nplugin = \"cosface\"\n[parallelism]\nplugin = \"" +
                     strategy.name + "\"\n" + strategy.keys + "\n[optimizer]\nplugin = \"sgd\"\n");
      const auto device = plugins().create<Device>(job);
      const auto parallelism = plugins().create<Parallelism>(job);
      const auto optimizer = plugins().create<Optimizer>(job);
      const auto margin = plugins().create<MarginHead>(job)->margin();
      device->open(0, 1);
      Graph graph;
      const Value x = graph.input("x", {DType::f32, {global_batch, width}});
      const Value label = graph.input("label", {DType::i64, {global_batch}});
      const Value rate = graph.input("rate", {DType::f32, {}});
      const Value step = graph.input("step", {DType::i64, {}});
      PartialGradients so_far;
      Value finite;
      for (std::int64_t j = 0; j < parts; ++j) {  // the first part has the NaN, the second not
        const Value embedding = j == 0 ? x : graph.input("good", x.type());
        finite = parallelism
                     ->class_centers({graph, 0, 1, global_batch, p.classes, seed, step, rate,
                                      *optimizer, margin, parts, j, label},
                                     embedding, label, so_far)
                     .ok;
      }
      graph.fetch("ok", finite);
      const auto store = device->make_store();
      const auto program =
          device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
      const auto before = narrowed<float>(p.weight, 0, p.classes * width);
      store->write("centers.weight", before.data());
      const float factor = 1;
      const std::int64_t number = 0;
      program->write("x", narrowed<float>(p.x[0], 0, global_batch * width).data());
      const auto good = narrowed<float>(p.x[1], 0, global_batch * width);
      if (parts > 1) program->write("good", good.data());
      program->write("label", p.labels[0].data());
      program->write("rate", &factor);
      program->write("step", &number);
      program->run();
      float ok = 1;
      program->read("ok", &ok);
      EXPECT_EQ(ok, 0);
      std::vector<float> after(before.size());
      store->read("centers.weight", after.data());
      EXPECT_EQ(after, before);
    }
  }
}

}  // namespace
}  // namespace ftrain
