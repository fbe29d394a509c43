#include <algorithm>

#include "ftrain/schedule.h"

namespace {

struct StepSchedule final : ftrain::Schedule {
  std::vector<double> at, factors;

  void configure(ftrain::Keys& keys) override {
    Schedule::configure(keys);
    keys.bind("at", at, "where the factor changes, in units, ascending");
    keys.bind("factors", factors, "the factor from each of them on");
    keys.expect(at.size() == factors.size(), "factors", "must have as many entries as `at`");
    keys.expect(std::is_sorted(at.begin(), at.end()), "at", "must be ascending");
  }

 protected:
  double curve(double position, double, double) const override {
    double factor = 1;
    for (std::size_t i = 0; i < at.size(); ++i) {
      if (position >= at[i]) factor = factors[i];
    }
    return factor;
  }
};

}  // namespace

FTRAIN_PLUGIN(step, registry) {
  registry.add<ftrain::Schedule, StepSchedule>("step", "a factor that changes at given steps");
}
