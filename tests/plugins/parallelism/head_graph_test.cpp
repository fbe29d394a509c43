// Heads with a graph half (AdaFace and MagFace of the examples) in whole steps: the same losses
// however a step is cut up, gradients by finite differences, state that is carried on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/model/head_graph.h"
#include "ftrain/model/head_pass.h"
#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

const std::string adaface =
    "plugin = \"adaface\"\nscale = 8.0\nmargin = 0.2\nconcentration = 0.5\nmomentum = 0.5";
const std::string magface =
    "plugin = \"magface\"\nscale = 8.0\nlower_norm = 2.0\nupper_norm = 6.0\nlower_margin = 0.1\n"
    "upper_margin = 0.4\nlambda = 5.0";

const std::vector<std::string>& strategies() {
  static const std::vector<std::string> all{"plugin = \"data_parallel\"\nbatch_norm = 4",
                                            "plugin = \"model_parallel\"\nbatch_norm = 4",
                                            "plugin = \"partial_fc\"\nsample_rate = 1.0\n"
                                            "batch_norm = 4"};
  return all;
}

struct Cut {
  int ranks;
  std::int64_t parts;
};

TEST(HeadGraphs, GiveTheSameLossesHoweverAStepIsCutUp) {
  for (const std::string& head : {adaface, magface}) {
    const TinyRun whole =
        run_tiny({.batch = 24, .steps = 10, .head = head, .parallelism = strategies()[0]});
    EXPECT_NE(whole.loss.front(), whole.loss.back());
    for (const std::string& strategy : strategies()) {
      for (const Cut& cut : {Cut{1, 1}, {2, 1}, {3, 1}, {1, 2}, {3, 2}, {2, 3}}) {
        SCOPED_TRACE(head.substr(0, 18) + " " + strategy + " on " + std::to_string(cut.ranks) +
                     " ranks in " + std::to_string(cut.parts) + " parts");
        const TinyRun run = run_tiny({.ranks = cut.ranks,
                                      .parts = cut.parts,
                                      .batch = 24 / cut.ranks / cut.parts,
                                      .steps = 10,
                                      .head = head,
                                      .parallelism = strategy});
        expect_same_losses(run, whole, 1e-5);
        expect_same_states(run, whole, 5e-5, false);
      }
    }
  }
}

TEST(HeadGraphs, PlainLoopsDoTheSame) {
  for (const std::string& head : {adaface, magface}) {
    for (const std::string& strategy : strategies()) {
      SCOPED_TRACE(strategy);
      TinyJob job{.parts = 2, .steps = 4, .head = head, .parallelism = strategy};
      const TinyRun fast = run_tiny(job);
      job.device = "kernels = \"reference\"";
      const TinyRun plain = run_tiny(job);
      expect_same_losses(fast, plain, 1e-5);
      expect_same_states(fast, plain, 5e-5, true);
    }
  }
}

// Also where rows are sampled.
TEST(HeadGraphs, PartsOfAStepAreItsRanksOnASample) {
  for (const std::string& head : {adaface, magface}) {
    TinyJob job{
        .ranks = 4, .head = head, .parallelism = "plugin = \"partial_fc\"\nsample_rate = 0.3"};
    const TinyRun ranks = run_tiny(job);
    job.ranks = 1, job.parts = 4;
    const TinyRun parts = run_tiny(job);
    expect_same_losses(parts, ranks, 1e-5);
    EXPECT_EQ(parts.sampled, ranks.sampled);
  }
}

TEST(HeadGraphs, RecomputingChangesNothing) {
  TinyJob job{.parts = 2, .batch = 8, .steps = 4, .head = adaface};
  const TinyRun kept = run_tiny(job);
  for (const std::string recompute : {"cheap", "block"}) {
    SCOPED_TRACE(recompute);
    job.device = "recompute = \"" + recompute + "\"";
    expect_same_losses(run_tiny(job), kept, 1e-6);
  }
}

// What runs ahead keeps nothing: a step in parts takes no more memory for it.
TEST(HeadGraphs, RunAheadInAPartsMemory) {
  for (const std::string recompute : {"none", "cheap", "block"}) {
    SCOPED_TRACE(recompute);
    const auto more = [&](const std::string& head) {
      TinyJob job{.parts = 4, .batch = 96, .steps = 1, .head = head};
      job.device = "recompute = \"" + recompute + "\"";
      const auto of_parts = static_cast<std::int64_t>(run_tiny(job).arena_bytes);
      job.parts = 1;
      return of_parts - static_cast<std::int64_t>(run_tiny(job).arena_bytes);
    };
    EXPECT_LE(more(adaface), more(magface) + 4096);
  }
}

TEST(HeadGraphs, StatisticsOfARankAreItsOwn) {
  TinyJob job{.ranks = 2, .steps = 3, .head = adaface};
  const TinyRun global = run_tiny(job);
  job.head += "\nstatistics = \"rank\"";
  const TinyRun ranks = run_tiny(job);
  EXPECT_GT(std::abs(ranks.states.at("head.norm_deviation")[0] -
                     global.states.at("head.norm_deviation")[0]),
            1e-4f);
  EXPECT_NE(ranks.loss, global.loss);
  // A rank's statistics are of all of its parts.
  job.parallelism += "\nbatch_norm = 4";
  job.batch = 8;
  const TinyRun at_once = run_tiny(job);
  job.batch = 4, job.parts = 2;
  expect_same_losses(run_tiny(job), at_once, 1e-5);
}

TEST(HeadGraphs, CarryTheirStateOnToTheBit) {
  TinyJob job{.parts = 2, .steps = 6, .head = adaface};
  const TinyRun whole = run_tiny(job);
  job.steps = 3;
  const TinyRun before = run_tiny(job);
  EXPECT_LT(before.states.at("head.norm_mean")[0], 10);  // it began with 20
  job.first_step = 3;
  job.states = before.states;
  const TinyRun after = run_tiny(job);
  EXPECT_EQ(after.loss, std::vector<double>(whole.loss.begin() + 3, whole.loss.end()));
  EXPECT_EQ(after.states, whole.states);
  job.states.erase("head.norm_mean");
  EXPECT_NE(run_tiny(job).loss, after.loss);
}

TEST(HeadGraphs, KeepTheirStateInABadStep) {
  TinyJob job{.steps = 1, .head = adaface};
  job.loss_scaling = LossScaling{.initial = 3e38, .interval = 2000};
  job.overflows = true;
  const TinyRun run = run_tiny(job);
  ASSERT_EQ(run.ok, std::vector<double>{0});
  EXPECT_EQ(run.states.at("head.norm_mean")[0], 20);
  EXPECT_EQ(run.states.at("head.norm_deviation")[0], 100);
}

// Other heads' graphs have nothing of it.
TEST(HeadGraphs, CostOtherHeadsNothing) {
  const TinyJob job{.parts = 2};
  const Assembly assembly(Job::parse(job.text()), tiny_plugins());
  const auto graph = training_graph(assembly, job.classes, 0, 1);
  int walks = 0;
  for (std::int32_t i = 0; i < graph->size(); ++i) {
    const Node& node = graph->node(i);
    EXPECT_LT(node.stage.micro_batch, 2);
    EXPECT_NE(node.op, &ops::def::concat_rows);
    EXPECT_NE(node.op, &ops::def::margin_term_gradient);
    EXPECT_NE(node.op, &ops::def::scale_rows);
    if (node.op != &ops::def::class_center_forward) continue;
    ++walks;
    EXPECT_FALSE(node.inputs[center_forward::terms].valid());
  }
  EXPECT_EQ(walks, 2);
}

// The loss of one step on one rank in double, and its gradient by the embedding.
class OneStep {
 public:
  static constexpr std::int64_t batch = 6, width = 5, classes = 7;

  OneStep(const std::string& head, const std::string& strategy) {
    const Job job =
        Job::parse("[device]\nplugin = \"cpu\"\nthreads = 1\nkernels = \"reference\"\n[head]\n" +
                   head + "\n[parallelism]\n" + strategy + "\n[optimizer]\nplugin = \"sgd\"\n");
    Registry& r = plugins();
    device_ = r.create<Device>(job);
    device_->open(0, 1);
    parallelism_ = r.create<Parallelism>(job);
    optimizer_ = r.create<Optimizer>(job);
    head_ = r.create<MarginHead>(job);
    const auto half = head_->graph_half();
    Build build{.graph = graph_, .dtype = DType::f64};
    HeadStep step{*half, Scope(build, "head")};
    const Value x = graph_.input("x", {DType::f64, {batch, width}});
    const Value label = graph_.input("label", {DType::i64, {batch}});
    const Value rate = graph_.input("rate", {DType::f32, {}});
    const Value number = graph_.input("step", {DType::i64, {}});
    StepBuild of{.graph = graph_,
                 .batch = batch,
                 .classes = classes,
                 .step = number,
                 .rate = rate,
                 .optimizer = *optimizer_,
                 .margin = head_->margin()};
    of.head = &step;
    PartialGradients so_far;
    const ClassCenterStep made = parallelism_->class_centers(of, x, label, so_far);
    graph_.fetch("loss", made.loss);
    graph_.fetch("dx", gradients(graph_, made.seeds, std::vector<Value>{x})[0]);
    store_ = device_->make_store();
    program_ = device_->compile(device_->prepare(graph_, store_.get(), nullptr), *store_, nullptr);
    initialize(*store_, 5);
    std::vector<double> centers(static_cast<std::size_t>(classes * width));
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (double& c : centers) c = normal(random);
    store_->write("centers.weight", centers.data());
    const float still = 0;  // class centers stay as they are
    const std::int64_t zero = 0;
    std::vector<std::int64_t> labels;
    for (std::int64_t b = 0; b < batch; ++b) labels.push_back(b * b % classes);
    program_->write("label", labels.data());
    program_->write("rate", &still);
    program_->write("step", &zero);
  }

  double loss(const std::vector<double>& x, std::vector<double>* dx = nullptr) {
    program_->write("x", x.data());
    program_->run();
    double loss = 0;
    program_->read("loss", &loss);
    if (dx != nullptr) {
      dx->resize(x.size());
      program_->read("dx", dx->data());
    }
    return loss;
  }

 private:
  Graph graph_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Parallelism> parallelism_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<MarginHead> head_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<Executable> program_;
};

// Features of lengths 2 to 7.
std::vector<double> features() {
  std::vector<double> x;
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  for (std::int64_t b = 0; b < OneStep::batch; ++b) {
    std::vector<double> row;
    double squares = 0;
    for (std::int64_t d = 0; d < OneStep::width; ++d) {
      row.push_back(normal(random));
      squares += row.back() * row.back();
    }
    for (const double v : row) x.push_back(v / std::sqrt(squares) * static_cast<double>(2 + b));
  }
  return x;
}

double slope_along(OneStep& step, const std::vector<double>& x, const std::vector<double>& way) {
  constexpr double h = 1e-6;
  std::vector<double> ahead = x, behind = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    ahead[i] += h * way[i];
    behind[i] -= h * way[i];
  }
  return (step.loss(ahead) - step.loss(behind)) / (2 * h);
}

// Norms below, within and above the bounds of the margin.
TEST(HeadGraphs, MagFacesGradientGoesThroughTheNorm) {
  for (const std::string& strategy : strategies()) {
    for (const std::string easy : {"true", "false"}) {
      OneStep step(
          "plugin = \"magface\"\nscale = 8.0\nlower_norm = 2.5\nupper_norm = 6.5\n"
          "lower_margin = 0.1\nupper_margin = 0.6\nlambda = 3.0\neasy_margin = " +
              easy,
          strategy);
      const std::vector<double> x = features();
      std::vector<double> dx;
      step.loss(x, &dx);
      double radial = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        std::vector<double> way(x.size());
        way[i] = 1;
        EXPECT_NEAR(dx[i], slope_along(step, x, way), 1e-7) << strategy << " " << easy << " " << i;
        if (i / OneStep::width == 2) radial += dx[i] * x[i];
      }
      EXPECT_GT(std::abs(radial), 1e-3);  // an ordinary head's would be 0
    }
  }
}

// AdaFace takes no gradient through norms: it is that of moves which leave every norm as it is.
TEST(HeadGraphs, AdaFacesGradientIsThatOfFixedNorms) {
  for (const std::string& strategy : strategies()) {
    OneStep step(adaface, strategy);
    const std::vector<double> x = features();
    std::vector<double> dx;
    step.loss(x, &dx);
    std::mt19937 random(11);
    std::normal_distribution<double> normal;
    constexpr auto width = static_cast<std::size_t>(OneStep::width);
    for (int trial = 0; trial < 8; ++trial) {
      std::vector<double> way(x.size());
      for (double& w : way) w = normal(random);
      double along = 0;
      for (std::size_t row = 0; row < x.size(); row += width) {
        double product = 0, squares = 0, radial = 0;
        for (std::size_t i = row; i < row + width; ++i) {
          product += way[i] * x[i];
          squares += x[i] * x[i];
          radial += dx[i] * x[i];
        }
        EXPECT_NEAR(radial, 0, 1e-12);
        for (std::size_t i = row; i < row + width; ++i) {
          way[i] -= product / squares * x[i];
          along += way[i] * dx[i];
        }
      }
      EXPECT_NEAR(along, slope_along(step, x, way), 1e-7) << strategy;
      EXPECT_GT(std::abs(along), 1e-4);
    }
  }
}

// ---- graph halves that do not fit
struct Odd final : HeadGraph {
  bool statistical = false, slopes = false;
  std::size_t terms_given = 1;
  bool scalar = false;
  Statistics statistics_of() const override {
    return statistical ? Statistics::global : Statistics::none;
  }
  HeadTerms terms(const Scope&, const HeadSignals& rows) override {
    const Value term = scalar ? ops::sum(rows.norms) : rows.norms;
    return {std::vector<Value>(terms_given, term), {}, slopes};
  }
};

std::string refusal(Odd odd) {
  Graph graph;
  Build build{.graph = graph};
  HeadStep step{odd, Scope(build, "head")};
  const Job job = Job::parse("[head]\nplugin = \"adaface\"\n[optimizer]\nplugin = \"sgd\"\n");
  const auto optimizer = plugins().create<Optimizer>(job);
  StepBuild of{.graph = graph,
               .batch = 4,
               .step = {},
               .rate = {},
               .optimizer = *optimizer,
               .margin = plugins().create<MarginHead>(job)->margin()};
  of.head = &step;
  const Value rows = graph.input("rows", {DType::f32, {4}});
  try {
    const HeadPass pass(of, {rows, rows, graph.input("labels", {DType::i64, {4}})}, false);
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

TEST(HeadGraphs, AreRefusedWhereTheyDoNotFitTheMargin) {
  using testing::HasSubstr;
  EXPECT_EQ(refusal({}), "");
  Odd many;
  many.terms_given = 5;
  EXPECT_THAT(refusal(many), HasSubstr("4 terms at most, not 5"));
  Odd scalar;
  scalar.scalar = true;
  EXPECT_THAT(refusal(scalar), HasSubstr("a number a row"));
  Odd slopes;
  slopes.slopes = true;
  EXPECT_THAT(refusal(slopes), HasSubstr("add that function"));
  slopes.statistical = true;
  EXPECT_THAT(refusal(slopes), HasSubstr("term_gradient = false"));
}

}  // namespace
}  // namespace ftrain
