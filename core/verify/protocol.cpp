#include "ftrain/verify/protocol.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// How many pairs of a kind lie below each threshold k * step, k = 0 .. count - 1.
struct Counts {
  std::vector<std::int64_t> genuine, impostor;
  explicit Counts(std::size_t count) : genuine(count), impostor(count) {}
  std::int64_t genuine_total = 0, impostor_total = 0;
};

struct Range {
  std::size_t begin, end;
};

Range fold_range(std::size_t pairs, int folds, int fold) {
  const std::size_t n = static_cast<std::size_t>(folds), f = static_cast<std::size_t>(fold);
  const std::size_t size = pairs / n, more = pairs % n;
  const std::size_t begin = f * size + std::min(f, more);
  return {begin, begin + size + (f < more ? 1 : 0)};
}

class Thresholds {
 public:
  Thresholds(double step, int count) {
    for (int k = 0; k < count; ++k) values_.push_back(k * step);
  }
  std::size_t size() const { return values_.size(); }
  double operator[](std::size_t k) const { return values_[k]; }

  Counts count(const PairDistances& pairs, Range range) const {
    Counts counts(size());
    for (std::size_t i = range.begin; i < range.end; ++i) {
      const bool same = pairs.same[i] != 0;
      ++(same ? counts.genuine_total : counts.impostor_total);
      if (std::isnan(pairs.distance[i])) continue;  // below no threshold
      const auto first = std::upper_bound(values_.begin(), values_.end(), pairs.distance[i]);
      if (first == values_.end()) continue;
      ++(same ? counts.genuine
              : counts.impostor)[static_cast<std::size_t>(first - values_.begin())];
    }
    std::partial_sum(counts.genuine.begin(), counts.genuine.end(), counts.genuine.begin());
    std::partial_sum(counts.impostor.begin(), counts.impostor.end(), counts.impostor.begin());
    return counts;
  }

 private:
  std::vector<double> values_;
};

// Counts of all pairs less those of a fold: the pairs that choose the fold's threshold.
Counts without(const Counts& all, const Counts& fold) {
  Counts rest = all;
  for (std::size_t k = 0; k < rest.genuine.size(); ++k) {
    rest.genuine[k] -= fold.genuine[k];
    rest.impostor[k] -= fold.impostor[k];
  }
  rest.genuine_total -= fold.genuine_total;
  rest.impostor_total -= fold.impostor_total;
  return rest;
}

void check_folds(const PairDistances& pairs, int folds) {
  if (pairs.distance.size() != pairs.same.size())
    throw DataError("verification: " + std::to_string(pairs.distance.size()) + " distances for " +
                    std::to_string(pairs.same.size()) + " verdicts");
  if (folds < 2)
    throw DataError("verification: needs at least 2 folds, got " + std::to_string(folds));
  if (pairs.size() < static_cast<std::size_t>(folds))
    throw DataError("verification: " + std::to_string(folds) + " folds need at least " +
                    std::to_string(folds) + " pairs, got " + std::to_string(pairs.size()));
}

std::size_t row_count(std::span<const float> embeddings, std::span<const float> flipped,
                      std::int64_t dimension) {
  if (dimension < 1 || embeddings.size() != flipped.size() ||
      embeddings.size() % static_cast<std::size_t>(dimension) != 0)
    throw DataError("verification: embeddings of " + std::to_string(embeddings.size()) + " and " +
                    std::to_string(flipped.size()) + " numbers are no two [images, " +
                    std::to_string(dimension) + "] matrices of one size");
  return embeddings.size() / static_cast<std::size_t>(dimension);
}

double norm(std::span<const float> row) {
  double sum = 0;
  for (const float x : row) sum += double{x} * double{x};
  return std::sqrt(sum);
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The threshold whose false accept rate is `rate`: FAR is a rising step function of the threshold,
// so the segment that crosses the rate starts at the last threshold whose FAR is not above it.
double threshold_at(const Thresholds& thresholds, const Counts& counts, double rate) {
  if (counts.impostor_total == 0) return 0;
  const auto far = [&](std::size_t k) {
    return static_cast<double>(counts.impostor[k]) / static_cast<double>(counts.impostor_total);
  };
  const std::size_t last = thresholds.size() - 1;
  if (far(last) < rate) return 0;
  std::size_t low = 0;
  while (low < last && far(low + 1) <= rate) ++low;
  if (low == last || far(low) == rate) return thresholds[low];
  return thresholds[low] +
         (rate - far(low)) / (far(low + 1) - far(low)) * (thresholds[low + 1] - thresholds[low]);
}

}  // namespace

std::size_t PairDistances::genuine() const {
  return static_cast<std::size_t>(
      std::count_if(same.begin(), same.end(), [](std::uint8_t s) { return s != 0; }));
}

PairDistances pair_distances(std::span<const float> embeddings, std::span<const float> flipped,
                             std::int64_t dimension, std::span<const Pair> pairs) {
  const std::size_t rows = row_count(embeddings, flipped, dimension);
  const std::size_t width = static_cast<std::size_t>(dimension);
  std::vector<double> norms(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (std::size_t i = row * width; i < (row + 1) * width; ++i) {
      const double x = double{embeddings[i]} + double{flipped[i]};
      sum += x * x;
    }
    norms[row] = sum == 0 ? 1.0 : std::sqrt(sum);
  }
  PairDistances result;
  result.distance.reserve(pairs.size());
  result.same.reserve(pairs.size());
  for (const Pair& pair : pairs) {
    for (const std::int64_t index : {pair.first, pair.second})
      if (index < 0 || static_cast<std::size_t>(index) >= rows)
        throw DataError("verification: pair " + std::to_string(result.size()) + " names image " +
                        std::to_string(index) + " of " + std::to_string(rows));
    const std::size_t a = static_cast<std::size_t>(pair.first);
    const std::size_t b = static_cast<std::size_t>(pair.second);
    double sum = 0;
    for (std::size_t i = 0; i < width; ++i) {
      const std::size_t p = a * width + i, q = b * width + i;
      const double x = (double{embeddings[p]} + double{flipped[p]}) / norms[a];
      const double y = (double{embeddings[q]} + double{flipped[q]}) / norms[b];
      sum += (x - y) * (x - y);
    }
    result.distance.push_back(sum);
    result.same.push_back(pair.same ? 1 : 0);
  }
  return result;
}

double mean_norm(std::span<const float> embeddings, std::span<const float> flipped,
                 std::int64_t dimension) {
  const std::size_t rows = row_count(embeddings, flipped, dimension);
  const std::size_t width = static_cast<std::size_t>(dimension);
  if (rows == 0) return 0;
  double sum = 0;
  for (std::size_t row = 0; row < rows; ++row)
    sum += norm(embeddings.subspan(row * width, width)) + norm(flipped.subspan(row * width, width));
  return sum / static_cast<double>(2 * rows);
}

FoldAccuracy fold_accuracy(const PairDistances& pairs, int folds) {
  check_folds(pairs, folds);
  const Thresholds thresholds(0.01, 400);
  const Counts all = thresholds.count(pairs, {0, pairs.size()});
  std::vector<double> accuracies, best_thresholds;
  for (int fold = 0; fold < folds; ++fold) {
    const Range range = fold_range(pairs.size(), folds, fold);
    const Counts test = thresholds.count(pairs, range);
    const Counts train = without(all, test);
    std::size_t best = 0;
    const auto correct = [](const Counts& c, std::size_t k) {
      return c.genuine[k] + c.impostor_total - c.impostor[k];
    };
    for (std::size_t k = 1; k < thresholds.size(); ++k)
      if (correct(train, k) > correct(train, best)) best = k;
    accuracies.push_back(static_cast<double>(correct(test, best)) /
                         static_cast<double>(range.end - range.begin));
    best_thresholds.push_back(thresholds[best]);
  }
  FoldAccuracy result;
  result.mean = mean_of(accuracies);
  double squares = 0;
  for (const double a : accuracies) squares += (a - result.mean) * (a - result.mean);
  result.deviation = std::sqrt(squares / folds);
  result.threshold = mean_of(best_thresholds);
  return result;
}

std::optional<double> validation_rate(const PairDistances& pairs, double rate, int folds) {
  check_folds(pairs, folds);
  if (pairs.genuine() == 0 || pairs.impostors() == 0) return std::nullopt;
  const Thresholds thresholds(0.001, 4000);
  const Counts all = thresholds.count(pairs, {0, pairs.size()});
  std::vector<double> rates;
  for (int fold = 0; fold < folds; ++fold) {
    const Range range = fold_range(pairs.size(), folds, fold);
    const Counts test = thresholds.count(pairs, range);
    if (test.genuine_total == 0) continue;
    const double threshold = threshold_at(thresholds, without(all, test), rate);
    std::int64_t accepted = 0;
    for (std::size_t i = range.begin; i < range.end; ++i)
      accepted += pairs.same[i] != 0 && pairs.distance[i] < threshold;
    rates.push_back(static_cast<double>(accepted) / static_cast<double>(test.genuine_total));
  }
  return mean_of(rates);
}

namespace {

// The distances of one verdict, sorted; a distance that is no number counts as the farthest.
std::vector<double> sorted_distances(const PairDistances& pairs, bool same) {
  std::vector<double> result;
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if ((pairs.same[i] != 0) == same)
      result.push_back(std::isnan(pairs.distance[i]) ? std::numeric_limits<double>::infinity()
                                                     : pairs.distance[i]);
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

std::optional<double> true_accept_rate(const PairDistances& pairs, double rate) {
  const std::vector<double> genuine = sorted_distances(pairs, true);
  const std::vector<double> impostor = sorted_distances(pairs, false);
  // The rates are decimal: 1000 * 1e-3 must count as 1.
  const double allowed = static_cast<double>(impostor.size()) * rate * (1 + 1e-12);
  if (genuine.empty() || allowed < 1) return std::nullopt;
  const std::size_t accepted = static_cast<std::size_t>(allowed);
  // A threshold just at the first impostor that must be refused.
  const auto end = accepted >= impostor.size()
                       ? genuine.end()
                       : std::lower_bound(genuine.begin(), genuine.end(), impostor[accepted]);
  return static_cast<double>(end - genuine.begin()) / static_cast<double>(genuine.size());
}

std::optional<double> roc_area(const PairDistances& pairs) {
  const std::vector<double> genuine = sorted_distances(pairs, true);
  const std::vector<double> impostor = sorted_distances(pairs, false);
  if (genuine.empty() || impostor.empty()) return std::nullopt;
  double wins = 0;
  for (const double d : genuine) {
    const auto [low, high] = std::equal_range(impostor.begin(), impostor.end(), d);
    wins += static_cast<double>(impostor.end() - high) + 0.5 * static_cast<double>(high - low);
  }
  return wins / (static_cast<double>(genuine.size()) * static_cast<double>(impostor.size()));
}

}  // namespace ftrain
