// Rate schedules: what a job's [schedule] names.
#pragma once

#include <cstdint>
#include <string>

#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class FTRAIN_API Schedule : public Configurable {
 public:
  static constexpr const char* kind = "schedule";
  ~Schedule() override;

  // Binds `unit`, `update`, `warmup` and `warmup_from`; schedules add their own keys.
  void configure(Keys& keys) override;
  // The factor on the optimizer's rate at step `step` (0 <= step < steps): warm-up first, then the
  // schedule's own curve over the rest.
  double factor(std::int64_t step, std::int64_t steps, std::int64_t steps_per_epoch) const;

 protected:
  // After the warm-up: `position` and `length` in the schedule's unit (steps or epochs, fractional
  // for epochs). position counts from the start of training, warm-up included; so does length.
  virtual double curve(double position, double length, double warmup) const = 0;

  double warmup_ = 0;       // in units
  double warmup_from_ = 0;  // factor at step 0
  std::string unit_ = "step";
  std::string update_ = "step";  // the factor moves with every step, or at epochs' starts
};

}  // namespace ftrain
