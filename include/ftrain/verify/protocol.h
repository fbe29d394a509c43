// The verification protocol of the face-recognition literature, as pure functions in double.
//
// An image's embedding is e(image) + e(flipped image), normalised; a pair's distance is the squared
// Euclidean distance of its two embeddings. "Same" means distance < threshold. Folds are runs of
// the pairs in their given order, as scikit-learn's unshuffled KFold cuts them: the first n % folds
// folds have one pair more. Threads: no state, call from anywhere. Failure: DataError.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ftrain/data/pair_set.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Distances of pairs with their verdicts: what every measure below is computed from.
struct FTRAIN_API PairDistances {
  std::vector<double> distance;
  std::vector<std::uint8_t> same;  // 1: one person

  std::size_t size() const { return distance.size(); }
  std::size_t genuine() const;
  std::size_t impostors() const { return size() - genuine(); }
};

// The result of a verification, as metrics.jsonl and summary.json hold it: what the job's metrics
// (ftrain/verify/metric.h) measured.
struct Accuracy {
  double mean = 0, deviation = 0;  // over the folds; population deviation
  double threshold = 0;            // mean of the folds' best thresholds
  // Mean norm of the raw embeddings, both passes; no number where it is not measured.
  double xnorm = std::numeric_limits<double>::quiet_NaN();
  // True accept rates by false accept rate. "1e-3" is the folds' validation rate (see below);
  // "1e-1", "1e-2" and "1e-4" are points of the exact ROC, present when the set has pairs enough.
  std::map<std::string, double> tar;
  std::map<std::string, double> metrics;  // every other value, by the name that its metric gives
};

// Both embeddings are [images, dimension], row-major. A zero embedding stays zero.
FTRAIN_API PairDistances pair_distances(std::span<const float> embeddings,
                                        std::span<const float> flipped, std::int64_t dimension,
                                        std::span<const Pair> pairs);

// Mean norm of the rows of both passes.
FTRAIN_API double mean_norm(std::span<const float> embeddings, std::span<const float> flipped,
                            std::int64_t dimension);

struct FoldAccuracy {
  double mean = 0, deviation = 0, threshold = 0;
};

// For each fold: the first of the thresholds 0, 0.01, ..., 3.99 that is most accurate on the other
// folds, and its accuracy on this fold. Needs at least as many pairs as folds.
FTRAIN_API FoldAccuracy fold_accuracy(const PairDistances& pairs, int folds = 10);

// The validation rate at a false accept rate: for each fold, the threshold with that rate on the
// other folds (linear between the thresholds 0, 0.001, ..., 3.999; 0 when no threshold reaches it),
// and the share of the fold's genuine pairs that it accepts; the mean over the folds that have
// genuine pairs. Empty when a measure is undefined: no genuine or no impostor pairs.
FTRAIN_API std::optional<double> validation_rate(const PairDistances& pairs, double rate,
                                                 int folds = 10);

// The exact ROC's best true accept rate whose false accept rate is at most `rate`. Empty when the
// impostor pairs cannot resolve the rate (fewer than 1 / rate) or there are no genuine pairs.
FTRAIN_API std::optional<double> true_accept_rate(const PairDistances& pairs, double rate);

// The area under the ROC: the probability that a genuine pair is closer than an impostor pair, ties
// counting half. Empty without genuine or impostor pairs.
FTRAIN_API std::optional<double> roc_area(const PairDistances& pairs);

}  // namespace ftrain
