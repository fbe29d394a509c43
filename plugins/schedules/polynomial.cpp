#include <algorithm>
#include <cmath>

#include "ftrain/schedule.h"

namespace {

struct Polynomial final : ftrain::Schedule {
  double power = 1, end = 0;

  void configure(ftrain::Keys& keys) override {
    Schedule::configure(keys);
    keys.bind("power", power, "exponent of the decay", ftrain::above(0));
    keys.bind("end", end, "the factor after the last step", ftrain::between(0, 1));
  }

 protected:
  double curve(double position, double length, double warmup) const override {
    const double left = std::clamp((length - position) / std::max(length - warmup, 1e-9), 0.0, 1.0);
    return end + (1 - end) * std::pow(left, power);
  }
};

}  // namespace

FTRAIN_PLUGIN(polynomial, registry) {
  registry.add<ftrain::Schedule, Polynomial>("polynomial", "from 1 down to `end` by a power");
}
