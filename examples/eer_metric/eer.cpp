// A metric of one's own: the equal error rate of a verification set, and the area under its ROC.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "ftrain/metric.h"

struct Eer final : ftrain::Metric {
  bool area = true;

  void configure(ftrain::Keys& keys) override {
    keys.bind("area", area, "give the area under the ROC too, as roc_area");
  }

  std::vector<ftrain::NamedValue> measure(const ftrain::VerifiedSet& set) const override {
    if (set.pairs.genuine() == 0 || set.pairs.impostors() == 0) return {};
    std::vector<ftrain::NamedValue> values{{"eer", equal_error_rate(set.pairs)}};
    if (area) values.push_back({"roc_area", *ftrain::roc_area(set.pairs)});
    return values;
  }

 private:
  // Where the share of impostors that are accepted meets the share of genuine pairs that are
  // refused: the mean of the two at the threshold at which they are closest.
  static double equal_error_rate(const ftrain::PairDistances& pairs) {
    std::vector<std::pair<double, bool>> sorted;  // distance, genuine
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const double distance = pairs.distance[i];
      sorted.emplace_back(std::isnan(distance) ? std::numeric_limits<double>::infinity() : distance,
                          pairs.same[i] != 0);
    }
    std::sort(sorted.begin(), sorted.end());
    const auto genuine = static_cast<double>(pairs.genuine());
    const auto impostors = static_cast<double>(pairs.impostors());
    double accepted = 0, refused = genuine, rate = 0.5, closest = 1;
    for (std::size_t i = 0; i < sorted.size(); ++i) {
      sorted[i].second ? --refused : ++accepted;
      // No threshold lies between equal distances.
      if (i + 1 < sorted.size() && sorted[i + 1].first == sorted[i].first) continue;
      const double far = accepted / impostors, frr = refused / genuine;
      if (std::abs(far - frr) >= closest) continue;
      closest = std::abs(far - frr);
      rate = (far + frr) / 2;
    }
    return rate;
  }
};

FTRAIN_PLUGIN(eer, registry) {
  registry.add<ftrain::Metric, Eer>("eer", "equal error rate, area under the ROC");
}
