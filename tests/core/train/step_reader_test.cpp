// The scalars of steps are read in order, and of a device that runs ahead one step late.
#include "core/train/step_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "ftrain/base/error.h"
#include "ftrain/model/report_scalar.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using testing::ElementsAre;

// In run n every fetch has a value of its own, that of its place in the graph plus 100 n.
class Counter final : public Executable {
 public:
  Counter(std::unique_ptr<Graph> graph, bool ahead) : ahead_(ahead) {
    program_.graph = std::move(graph);
  }
  const Program& program() const override { return program_; }
  void write(std::string_view, const void*) override {}
  void run() override { ++runs_; }
  void read(std::string_view fetch, void* data) override {
    give(fetch, runs_, data);
    if (fetch == "loss") read_.push_back(runs_);
  }
  bool runs_ahead() const override { return ahead_; }
  void read_before(std::string_view fetch, void* data) override {
    if (!ahead_) return Executable::read_before(fetch, data);
    give(fetch, runs_ - 1, data);
    if (fetch == "loss") read_.push_back(runs_ - 1);
  }

  std::vector<int> read_;  // the runs that a loss was read of

 private:
  void give(std::string_view name, int run, void* data) const {
    const auto& fetches = program_.graph->fetches();
    for (std::size_t i = 0; i < fetches.size(); ++i) {
      if (fetches[i].name != name) continue;
      for (std::int64_t k = 0; k < fetches[i].value.shape().elements(); ++k) {
        static_cast<float*>(data)[k] = static_cast<float>(i) + 100.0f * static_cast<float>(run);
      }
      return;
    }
    ADD_FAILURE() << "no fetch " << name;
  }

  Program program_;
  bool ahead_;
  int runs_ = 0;
};

// Fetches: loss, gradient_norm, ok, two parts' "t", "u", and notes of several ranks.
std::unique_ptr<Graph> step_graph(bool notes) {
  auto graph = std::make_unique<Graph>();
  const Value x = graph->input("rate", {DType::f32, {}});
  for (const char* name : {"loss", "gradient_norm", "ok"}) graph->fetch(name, x);
  report_scalar(*graph, "t", x);
  graph->set_stage({Phase::forward, 1});
  report_scalar(*graph, "t", x);
  report_scalar(*graph, "u", x);
  if (notes) graph->fetch("notes", graph->input("notes", {DType::f32, {2}}));
  return graph;
}

TEST(StepReader, ReadsEachStepOnceWhileTheNextIsUnderWay) {
  Counter step(step_graph(false), true);
  StepReader reader(step);
  ASSERT_EQ(reader.most(), 1u);
  std::vector<std::int64_t> numbers;
  std::vector<float> losses, rates;
  const auto read = [&] {
    const StepScalars scalars = reader.read();
    numbers.push_back(scalars.step);
    losses.push_back(scalars.loss);
    rates.push_back(scalars.rate);
  };
  for (std::int64_t number = 1; number <= 4; ++number) {
    step.run();
    reader.enqueued(number, static_cast<float>(number) / 2);
    EXPECT_EQ(reader.next(), std::max<std::int64_t>(number - 1, 1));
    while (reader.under_way() > reader.most()) read();
  }
  EXPECT_THAT(numbers, ElementsAre(1, 2, 3));
  while (reader.under_way() > 0) read();
  EXPECT_THAT(numbers, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(losses, ElementsAre(100, 200, 300, 400));
  EXPECT_THAT(rates, ElementsAre(0.5f, 1.0f, 1.5f, 2.0f));
  EXPECT_THAT(step.read_, ElementsAre(1, 2, 3, 4));
}

TEST(StepReader, LeavesNothingUnderWayOfADeviceThatWaits) {
  Counter step(step_graph(false), false);
  StepReader reader(step);
  EXPECT_EQ(reader.most(), 0u);
  step.run();
  reader.enqueued(1, 0);
  EXPECT_EQ(reader.read().loss, 100);
  EXPECT_EQ(reader.under_way(), 0u);
  float value = 0;
  EXPECT_THROW(step.read_before("loss", &value), DeviceError);
}

TEST(StepReader, TakesTheMeanOfWhatPartsOfAStepReport) {
  Counter step(step_graph(true), false);
  StepReader reader(step);
  step.run();
  reader.enqueued(1, 0);
  const StepScalars scalars = reader.read();
  EXPECT_EQ(scalars.gradient_norm, 101);
  EXPECT_EQ(scalars.ok, 102);
  EXPECT_THAT(scalars.metrics, ElementsAre(NamedValue{"t", 103.5}, NamedValue{"u", 105}));
  EXPECT_THAT(scalars.notes, ElementsAre(106, 106));
}

TEST(StepReader, OfOneRankHasNoNotes) {
  Counter step(step_graph(false), false);
  StepReader reader(step);
  step.run();
  reader.enqueued(1, 0);
  EXPECT_THAT(reader.read().notes, ElementsAre(0, 0));
}

}  // namespace
}  // namespace ftrain
