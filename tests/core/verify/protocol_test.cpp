#include "ftrain/verify/protocol.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/verify/metrics.h"
#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// A set whose numbers come from an integer recurrence, so that another program can make the same.
// The known answers below are those of numpy, scikit-learn and scipy in double.
struct Made {
  std::vector<float> embeddings, flipped;
  std::vector<Pair> pairs;
  std::int64_t dimension;

  Made(std::int64_t count, std::int64_t width, float spread, std::uint64_t state)
      : dimension(width) {
    const auto next = [&state] {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      return static_cast<float>(static_cast<double>(state >> 40) / 16777216.0 - 0.5);
    };
    for (std::int64_t p = 0; p < count; ++p) {
      const bool same = (p / 7) % 2 == 0;
      std::vector<float> first, second;
      for (std::int64_t d = 0; d < width; ++d) first.push_back(next());
      for (std::int64_t d = 0; d < width; ++d) {
        const float other = next();
        second.push_back(same ? first[static_cast<std::size_t>(d)] + spread * other : other);
      }
      for (const auto* row : {&first, &second})
        for (const float x : *row) {
          embeddings.push_back(x);
          flipped.push_back(x + 0.25f * next());
        }
      pairs.push_back({2 * p, 2 * p + 1, same});
    }
  }

  // By the metrics that are there without a plugin.
  Accuracy measured() const {
    Registry registry;
    add_metrics(registry);
    std::vector<std::unique_ptr<Metric>> metrics;
    for (const char* name : {"accuracy", "xnorm", "tar"}) {
      metrics.push_back(registry.create<Metric>(name, Table::empty("verify")));
    }
    return measure({.pairs = pair_distances(embeddings, flipped, dimension, pairs),
                    .embeddings = embeddings,
                    .flipped = flipped,
                    .dimension = dimension},
                   metrics);
  }
};

// Alternating as long as there are both.
PairDistances distances_of(const std::vector<double>& genuine,
                           const std::vector<double>& impostor) {
  PairDistances result;
  for (std::size_t i = 0; i < std::max(genuine.size(), impostor.size()); ++i) {
    if (i < genuine.size()) {
      result.distance.push_back(genuine[i]);
      result.same.push_back(1);
    }
    if (i < impostor.size()) {
      result.distance.push_back(impostor[i]);
      result.same.push_back(0);
    }
  }
  return result;
}

TEST(Protocol, agrees_with_numpy_when_the_folds_are_uneven) {
  const Made set(503, 16, 1.6f, 1);
  const PairDistances distances =
      pair_distances(set.embeddings, set.flipped, set.dimension, set.pairs);
  EXPECT_NEAR(distances.distance[0], 0.89228599, 1e-8);
  EXPECT_NEAR(distances.distance[1], 0.97915612, 1e-8);
  const Accuracy accuracy = set.measured();
  EXPECT_NEAR(accuracy.mean, 0.8767843137254901, 1e-12);
  EXPECT_NEAR(accuracy.deviation, 0.04221138289405509, 1e-12);
  EXPECT_NEAR(accuracy.threshold, 1.3510000000000002, 1e-12);
  EXPECT_NEAR(accuracy.xnorm, 1.4109842157458672, 1e-12);
  EXPECT_NEAR(accuracy.tar.at("1e-3"), 0.19806541928281057, 1e-12);
  EXPECT_NEAR(accuracy.tar.at("1e-1"), 0.876984126984127, 1e-12);
  EXPECT_NEAR(accuracy.tar.at("1e-2"), 0.503968253968254, 1e-12);
  EXPECT_FALSE(accuracy.tar.contains("1e-4")) << "251 impostor pairs cannot tell";
  EXPECT_NEAR(*roc_area(distances), 0.961076329602226, 1e-12);
}

TEST(Protocol, agrees_with_numpy_on_three_thousand_pairs) {
  const Made set(3000, 8, 1.2f, 2);
  const Accuracy accuracy = set.measured();
  EXPECT_NEAR(accuracy.mean, 0.8506666666666668, 1e-12);
  EXPECT_NEAR(accuracy.deviation, 0.023371397523944147, 1e-12);
  EXPECT_NEAR(accuracy.threshold, 1.238, 1e-12);
  EXPECT_NEAR(accuracy.xnorm, 0.9258299245613707, 1e-12);
  EXPECT_NEAR(accuracy.tar.at("1e-3"), 0.03198264923167658, 1e-12);
  EXPECT_NEAR(accuracy.tar.at("1e-1"), 0.7762982689747004, 1e-12);
  const PairDistances distances =
      pair_distances(set.embeddings, set.flipped, set.dimension, set.pairs);
  EXPECT_NEAR(*true_accept_rate(distances, 1e-3), 0.02996005326231691, 1e-12);
  EXPECT_NEAR(*roc_area(distances), 0.9208198592353053, 1e-12);
}

TEST(Protocol, a_distance_on_the_threshold_is_another_person) {
  // Thresholds are k * 0.01 in double. 0.5 is 50 * 0.01 exactly, so 0.5 itself is refused at it and
  // the best threshold is the next one.
  const PairDistances pairs =
      distances_of(std::vector<double>(10, 0.5), std::vector<double>(10, 0.505));
  const FoldAccuracy fold = fold_accuracy(pairs, 5);
  EXPECT_EQ(fold.mean, 0.5) << "no threshold lies between the two";
  const FoldAccuracy apart =
      fold_accuracy(distances_of(std::vector<double>(10, 0.5), std::vector<double>(10, 0.51)), 5);
  EXPECT_EQ(apart.mean, 1.0);
  EXPECT_NEAR(apart.threshold, 0.51, 1e-12);
}

TEST(Protocol, the_first_of_equally_good_thresholds_is_taken) {
  const FoldAccuracy fold =
      fold_accuracy(distances_of(std::vector<double>(10, 0.105), std::vector<double>(10, 3.0)), 10);
  EXPECT_EQ(fold.mean, 1.0);
  EXPECT_EQ(fold.deviation, 0.0);
  EXPECT_NEAR(fold.threshold, 0.11, 1e-12);
}

TEST(Protocol, a_set_of_one_kind_of_pairs_has_no_rates) {
  const PairDistances all_same = distances_of(std::vector<double>(20, 0.5), {});
  EXPECT_EQ(fold_accuracy(all_same).mean, 1.0);
  EXPECT_FALSE(validation_rate(all_same, 1e-3).has_value());
  EXPECT_FALSE(true_accept_rate(all_same, 0.1).has_value());
  EXPECT_FALSE(roc_area(all_same).has_value());
}

TEST(Protocol, a_rate_that_no_threshold_reaches_accepts_nobody) {
  // Impostors beyond every threshold: the false accept rate stays 0, the threshold becomes 0.
  const PairDistances pairs =
      distances_of(std::vector<double>(10, 0.5), std::vector<double>(10, 4.5));
  EXPECT_EQ(*validation_rate(pairs, 1e-3, 2), 0.0);
}

TEST(Protocol, the_exact_roc_keeps_its_promise_when_distances_tie) {
  // At rate 0.5 two of four impostors may pass, but three share a distance: only one can.
  const PairDistances pairs = distances_of({0.1, 0.3, 0.4, 0.6}, {0.2, 0.5, 0.5, 0.5});
  EXPECT_EQ(*true_accept_rate(pairs, 0.5), 0.75);
  EXPECT_EQ(*true_accept_rate(pairs, 0.25), 0.75);
  EXPECT_EQ(*true_accept_rate(pairs, 1.0), 1.0);
  EXPECT_FALSE(true_accept_rate(pairs, 0.2).has_value());
}

TEST(Protocol, equal_distances_are_worth_half) {
  EXPECT_EQ(*roc_area(distances_of({0.5}, {0.5})), 0.5);
  EXPECT_EQ(*roc_area(distances_of({0.1, 0.2}, {0.3})), 1.0);
}

TEST(Protocol, zero_and_invalid_embeddings_are_nobody) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> e{0, 0, 1, 0, nan, 0, 1, 0}, f{0, 0, 1, 0, 0, 0, 1, 0};
  const std::vector<Pair> pairs{{0, 1, true}, {2, 3, true}, {1, 3, true}};
  const PairDistances distances = pair_distances(e, f, 2, pairs);
  EXPECT_EQ(distances.distance[0], 1.0);
  EXPECT_TRUE(std::isnan(distances.distance[1]));
  EXPECT_EQ(distances.distance[2], 0.0);
  EXPECT_EQ(fold_accuracy(distances, 3).mean, 1.0 / 3);
}

TEST(Protocol, input_that_does_not_fit_is_refused) {
  const std::vector<float> e(8), f(6);
  const std::vector<Pair> pairs{{0, 1, true}};
  EXPECT_THROW(pair_distances(e, f, 2, pairs), DataError);
  EXPECT_THROW(pair_distances(e, e, 3, pairs), DataError);
  const std::vector<Pair> outside{{0, 4, true}};
  EXPECT_THROW(pair_distances(e, e, 2, outside), DataError);
  EXPECT_THROW(fold_accuracy(distances_of({0.1, 0.2}, {})), DataError) << "2 pairs, 10 folds";
}

}  // namespace
}  // namespace ftrain
