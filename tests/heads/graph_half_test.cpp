// The examples' heads with a graph half: their formulas at given terms. What their graphs make of
// whole steps is tested with the strategies.
#include <gtest/gtest.h>

#include <cmath>

#include "ftrain/config/table.h"
#include "ftrain/model/head_graph.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

std::unique_ptr<MarginHead> head(const std::string& plugin, const std::string& keys = "") {
  static Registry registry({FTRAIN_PLUGINS, FTRAIN_EXAMPLES});
  return registry.create<MarginHead>(
      Job::parse("[head]\nplugin = \"" + plugin + "\"\nscale = 1.0\n" + keys));
}

Dual<double> target(const Margin& m, double cosine, double norm, double term) {
  return m.f64.target(m.functor, {cosine, norm, {term}});
}

struct Known {
  double cosine, norm, value, slope;
};

// Of a running mean of 20 and a deviation of 5; from central differences of the published code.
TEST(AdaFace, IsThePublishedOne) {
  const auto m = head("adaface", "margin = 0.4")->margin();
  for (const Known& known : {Known{0.8, 10, 0.480212604, 1.315683904},
                             {-0.3, 10, -0.674160085, 0.881963582},
                             {0.8, 20, 0.4, 1},
                             {0.8, 40, 0.170499801, 0.401836538},
                             {0.8, 500, 0.170499801, 0.401836538},
                             {-0.3, 40, -0.704836876, 1.043527397}}) {
    const double norm = std::clamp(known.norm, 1e-3, 100.0);
    const double k = std::clamp(0.333 * (norm - 20) / (5 + 1e-3), -1.0, 1.0);
    const Dual<double> made = target(*m, known.cosine, known.norm, k);
    EXPECT_NEAR(made.value, known.value, 1e-7) << known.cosine << " " << known.norm;
    EXPECT_NEAR(made.slope, known.slope, 1e-7) << known.cosine << " " << known.norm;
  }
}

TEST(AdaFace, HasNoSlopeWhereABoundHolds) {
  const auto m = head("adaface", "margin = 0.4")->margin();
  EXPECT_EQ(target(*m, 0.9999, 20, 0).slope, 0);
  EXPECT_EQ(target(*m, std::cos(0.3), 20, 1).slope, 0);  // the moved angle would be negative
  EXPECT_NEAR(target(*m, std::cos(0.3), 20, 1).value, std::cos(1e-3) - 0.8, 1e-7);
  double cosine = 0.9999, slope = 1;
  const MarginRow<double> row{0.5, 20};
  m->f64.others(m->functor, {1, 1, 1, &cosine, &slope, &row});
  EXPECT_EQ(cosine, 1 - 1e-3);
  EXPECT_EQ(slope, 0);
}

TEST(MagFace, IsThePublishedOne) {
  const auto m = head("magface")->margin();
  for (const Known& known : {Known{0.6, 5, 0.192295834, 1.226671253},
                             {0.6, 30, 0.123187398, 1.240479283},
                             {0.6, 200, -0.155860847, 1.234723777},
                             {-0.2, 30, -0.2, 1}}) {
    const double margin = 0.45 + 0.0035 * (std::clamp(known.norm, 10.0, 110.0) - 10);
    const Dual<double> made = target(*m, known.cosine, known.norm, margin);
    EXPECT_NEAR(made.value, known.value, 1e-8) << known.cosine << " " << known.norm;
    EXPECT_NEAR(made.slope, known.slope, 1e-8) << known.cosine << " " << known.norm;
  }
  double slopes[most_margin_terms];
  m->f64.target_term_slopes(m->functor, {0.6, 30, {0.45 + 0.0035 * 20}}, slopes);
  EXPECT_NEAR(0.0035 * slopes[0], -0.00347334, 1e-8);  // by the norm
}

TEST(MagFace, TermSlopesAreThoseOfTheValues) {
  for (const std::string easy : {"true", "false"}) {
    const auto m = head("magface", "easy_margin = " + easy)->margin();
    for (double cosine = -0.97; cosine < 1; cosine += 0.09) {
      const double margin = 0.6, h = 1e-6;
      double slopes[most_margin_terms];
      m->f64.target_term_slopes(m->functor, {cosine, 30, {margin}}, slopes);
      const double difference =
          (target(*m, cosine, 30, margin + h).value - target(*m, cosine, 30, margin - h).value) /
          (2 * h);
      EXPECT_NEAR(slopes[0], difference, 1e-8) << easy << " " << cosine;
      EXPECT_EQ(slopes[1], 0);
    }
  }
}

TEST(GraphHalves, AreOfHeadsThatNeedOne) {
  for (const char* name : {"softmax", "normalized_softmax", "arcface", "cosface", "combined"}) {
    EXPECT_EQ(head(name)->graph_half(), nullptr) << name;
    EXPECT_EQ(head(name)->margin()->f64.target_term_slopes, nullptr) << name;
  }
  EXPECT_EQ(head("adaface")->graph_half()->statistics_of(), HeadGraph::Statistics::global);
  EXPECT_EQ(head("adaface", "statistics = \"rank\"")->graph_half()->statistics_of(),
            HeadGraph::Statistics::rank);
  EXPECT_EQ(head("magface")->graph_half()->statistics_of(), HeadGraph::Statistics::none);
}

}  // namespace
}  // namespace ftrain
