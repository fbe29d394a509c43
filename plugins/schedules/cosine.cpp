#include <algorithm>
#include <cmath>
#include <numbers>

#include "ftrain/schedule.h"

namespace {

struct Cosine final : ftrain::Schedule {
  double end = 0;

  void configure(ftrain::Keys& keys) override {
    Schedule::configure(keys);
    keys.bind("end", end, "the factor after the last step", ftrain::between(0, 1));
  }

 protected:
  double curve(double position, double length, double warmup) const override {
    const double done = std::clamp((position - warmup) / std::max(length - warmup, 1e-9), 0.0, 1.0);
    return end + (1 - end) * 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
};

}  // namespace

FTRAIN_PLUGIN(cosine, registry) {
  registry.add<ftrain::Schedule, Cosine>("cosine", "half a cosine from 1 down to `end`");
}
