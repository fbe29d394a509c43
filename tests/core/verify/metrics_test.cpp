// The list of what a verification measures.
#include "core/verify/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using testing::ElementsAre;
using testing::Pair;

// The share of pairs below a distance.
class Below final : public Metric {
 public:
  void configure(Keys& keys) override { keys.bind("distance", distance_, "the threshold"); }
  std::vector<NamedValue> measure(const VerifiedSet& set) const override {
    double count = 0;
    for (const double distance : set.pairs.distance) count += distance < distance_;
    return {{"below", count / static_cast<double>(set.pairs.size())},
            {"width", static_cast<double>(set.dimension)}};
  }

 private:
  double distance_ = 1;
};

class SecondMean final : public Metric {
 public:
  std::vector<NamedValue> measure(const VerifiedSet&) const override { return {{"mean", 0.5}}; }
};

class Metrics : public testing::Test {
 protected:
  Metrics() {
    add_metrics(registry_);
    registry_.add<Metric, Below>("below", "of a test");
    registry_.add<Metric, SecondMean>("second", "of a test");
    for (int i = 0; i < 20; ++i) {
      set_.pairs.distance.push_back(i < 10 ? 0.2 : 1.5);
      set_.pairs.same.push_back(i < 10 ? 1 : 0);
    }
    set_.dimension = 2;
    set_.embeddings = set_.flipped = embeddings_;
  }
  Accuracy measured(const std::vector<std::string>& names) {
    std::vector<std::unique_ptr<Metric>> metrics;
    const Job job = Job::parse("[verify.below]\ndistance = 0.1\n");
    for (const std::string& name : names) {
      metrics.push_back(registry_.create<Metric>(name, job.root().table("verify").table(name)));
    }
    return measure(set_, metrics);
  }

  Registry registry_;
  std::vector<float> embeddings_{3, 4, 3, 4};
  VerifiedSet set_;
};

TEST_F(Metrics, StandWhereTheirNamesSay) {
  const Accuracy accuracy = measured({"accuracy", "xnorm", "tar", "below"});
  EXPECT_EQ(accuracy.mean, 1.0);
  EXPECT_NEAR(accuracy.threshold, 0.21, 1e-12);
  EXPECT_EQ(accuracy.xnorm, 5.0);
  EXPECT_THAT(accuracy.tar, ElementsAre(Pair("1e-1", 1.0), Pair("1e-3", 1.0)));
  EXPECT_THAT(accuracy.metrics, ElementsAre(Pair("below", 0.0), Pair("width", 2.0)));
}

TEST_F(Metrics, ThatAreNotNamedAreNotMeasured) {
  const Accuracy accuracy = measured({"accuracy"});
  EXPECT_EQ(accuracy.mean, 1.0);
  EXPECT_TRUE(std::isnan(accuracy.xnorm));
  EXPECT_TRUE(accuracy.tar.empty());
  EXPECT_TRUE(accuracy.metrics.empty());
}

TEST_F(Metrics, ThatGiveOneNameAreRefused) {
  EXPECT_THROW(measured({"accuracy", "second"}), DataError);
  EXPECT_THROW(measured({"below", "below"}), DataError);
}

TEST_F(Metrics, AreAddedOnce) {
  const std::size_t before = registry_.entries().size();
  add_metrics(registry_);
  EXPECT_EQ(registry_.entries().size(), before);
}

}  // namespace
}  // namespace ftrain
