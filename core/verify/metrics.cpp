#include "core/verify/metrics.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain {

Metric::~Metric() = default;

namespace {

constexpr std::string_view tar_prefix = "tar.";

class FoldsMetric final : public Metric {
 public:
  std::vector<NamedValue> measure(const VerifiedSet& set) const override {
    const FoldAccuracy fold = fold_accuracy(set.pairs, set.folds);
    return {{"mean", fold.mean}, {"deviation", fold.deviation}, {"threshold", fold.threshold}};
  }
};

class NormMetric final : public Metric {
 public:
  std::vector<NamedValue> measure(const VerifiedSet& set) const override {
    return {{"xnorm", mean_norm(set.embeddings, set.flipped, set.dimension)}};
  }
};

class AcceptRates final : public Metric {
 public:
  std::vector<NamedValue> measure(const VerifiedSet& set) const override {
    std::vector<NamedValue> values;
    const auto add = [&](const char* rate, const std::optional<double>& tar) {
      if (tar) values.push_back({std::string(tar_prefix) + rate, *tar});
    };
    add("1e-1", true_accept_rate(set.pairs, 1e-1));
    add("1e-2", true_accept_rate(set.pairs, 1e-2));
    add("1e-3", validation_rate(set.pairs, 1e-3, set.folds));
    add("1e-4", true_accept_rate(set.pairs, 1e-4));
    return values;
  }
};

// Where a value of that name is kept.
double& place_of(const std::string& name, Accuracy& accuracy) {
  if (name == "mean") return accuracy.mean;
  if (name == "deviation") return accuracy.deviation;
  if (name == "threshold") return accuracy.threshold;
  if (name == "xnorm") return accuracy.xnorm;
  if (name.starts_with(tar_prefix)) return accuracy.tar[name.substr(tar_prefix.size())];
  return accuracy.metrics[name];
}

}  // namespace

void add_metrics(Registry& registry) {
  const auto& entries = registry.entries();
  const bool there = std::any_of(entries.begin(), entries.end(), [](const Registry::Entry& entry) {
    return entry.kind == Metric::kind && entry.name == "accuracy";
  });
  if (there) return;
  registry.add<Metric, FoldsMetric>("accuracy", "Accuracy-Flip over the folds, its threshold");
  registry.add<Metric, NormMetric>("xnorm", "mean length of the raw embeddings");
  registry.add<Metric, AcceptRates>("tar", "true accept rates at false accept rates");
}

Accuracy measure(const VerifiedSet& set, std::span<const std::unique_ptr<Metric>> metrics) {
  Accuracy accuracy;
  std::set<std::string> names;
  for (const auto& metric : metrics) {
    for (const NamedValue& value : metric->measure(set)) {
      if (!names.insert(value.name).second) {
        throw DataError("[verify] metrics: two of them give a value '" + value.name +
                        "'; leave one of the two out");
      }
      place_of(value.name, accuracy) = value.value;
    }
  }
  return accuracy;
}

}  // namespace ftrain
