#include "ftrain/model/schedule.h"

namespace ftrain {

Schedule::~Schedule() = default;

void Schedule::configure(Keys& keys) {
  const Rule step_or_epoch = one_of(std::vector<std::string>{"step", "epoch"});
  keys.bind("unit", unit_, "what the lengths and places of this table count", step_or_epoch);
  keys.bind("update", update_, "when the factor moves: every step, or where an epoch begins",
            step_or_epoch);
  keys.bind("warmup", warmup_, "length of the linear warm-up, in units", at_least(0));
  keys.bind("warmup_from", warmup_from_, "factor at the warm-up's first step", between(0, 1));
}

double Schedule::factor(std::int64_t step, std::int64_t steps, std::int64_t steps_per_epoch) const {
  const double unit = unit_ == "epoch" ? static_cast<double>(steps_per_epoch) : 1.0;
  if (update_ == "epoch") step -= step % steps_per_epoch;
  const double position = static_cast<double>(step) / unit;
  const double length = static_cast<double>(steps) / unit;
  if (position < warmup_) return warmup_from_ + (1 - warmup_from_) * position / warmup_;
  return curve(position, length, warmup_);
}

}  // namespace ftrain
