// What a step may report, and under which names.
#include "ftrain/model/report_scalar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/model/reported_scalars.h"
#include "ftrain/base/error.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <class Failure, class Body>
std::string said(const Body& body) {
  try {
    body();
  } catch (const Failure& error) {
    return error.what();
  }
  return "nothing";
}

class ReportScalar : public testing::Test {
 protected:
  Graph graph_;
  Value scalar_ = graph_.input("rate", {DType::f32, {}});
};

TEST_F(ReportScalar, IsAFetchOfTheGraph) {
  report_scalar(graph_, "feature_norm", scalar_);
  report_scalar(graph_, "head.t-0", scalar_);
  ASSERT_EQ(graph_.fetches().size(), 2u);
  EXPECT_EQ(graph_.fetches()[0].name, "metric.feature_norm");
  EXPECT_EQ(graph_.fetches()[0].value, scalar_);
  const auto reported = reported_scalars(graph_);
  ASSERT_EQ(reported.size(), 2u);
  EXPECT_EQ(reported[1].name, "head.t-0");
}

TEST_F(ReportScalar, OfSeveralPartsHasOneName) {
  for (std::int32_t part = 0; part < 3; ++part) {
    graph_.set_stage({Phase::forward, part});
    report_scalar(graph_, "t", scalar_);
  }
  report_scalar(graph_, "of_the_last", scalar_);
  graph_.fetch("loss", scalar_);
  const auto reported = reported_scalars(graph_);
  ASSERT_EQ(reported.size(), 2u);
  EXPECT_EQ(reported[0].name, "t");
  EXPECT_THAT(reported[0].fetches, ElementsAre("metric.t", "metric.t@1", "metric.t@2"));
  EXPECT_EQ(reported[1].name, "of_the_last");
  EXPECT_THAT(reported[1].fetches, ElementsAre("metric.of_the_last@2"));
}

TEST_F(ReportScalar, TakesScalarsAlone) {
  const Value vector = graph_.input("x", {DType::f32, {3}}),
              whole = graph_.input("step", {DType::i64, {}});
  EXPECT_THAT(said<ShapeError>([&] { report_scalar(graph_, "t", vector); }),
              HasSubstr("takes an f32 scalar, got f32[3]"));
  EXPECT_THAT(said<ShapeError>([&] { report_scalar(graph_, "t", whole); }), HasSubstr("got i64"));
  EXPECT_THAT(said<ShapeError>([&] { report_scalar(graph_, "t", Value()); }),
              HasSubstr("got no value"));
  EXPECT_TRUE(graph_.fetches().empty());
}

TEST_F(ReportScalar, RefusesNamesThatAreTakenOrNone) {
  report_scalar(graph_, "t", scalar_);
  EXPECT_THAT(said<PluginError>([&] { report_scalar(graph_, "t", scalar_); }),
              HasSubstr("'t': the step reports a scalar of that name already"));
  for (const char* name : {"", "a b", "t@1", "t\n", "größe"}) {
    EXPECT_THAT(said<PluginError>([&] { report_scalar(graph_, name, scalar_); }),
                HasSubstr("a name has letters"))
        << name;
  }
}

TEST_F(ReportScalar, IsNothingInAnEvaluation) {
  Build evaluation{.graph = graph_, .training = false}, training{.graph = graph_};
  report_scalar(Scope(evaluation), "t", scalar_);
  EXPECT_TRUE(graph_.fetches().empty());
  report_scalar(Scope(training), "t", scalar_);
  EXPECT_EQ(graph_.fetches().size(), 1u);
}

}  // namespace
}  // namespace ftrain
