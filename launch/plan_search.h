// The largest batch, or the most classes, that fit a machine: bisection on the plan.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "launch/step_plan.h"

namespace ftrain::launch {

enum class Quantity { batch, classes };

struct Largest {
  std::int64_t value = 0;
  std::size_t peak = 0;    // predicted for it
  std::size_t budget = 0;  // what was to be kept
};

// The largest value whose predicted peak is at most `budget`. The search takes kernels by their
// fixed order, measuring none; the value that it ends with is planned as a run plans it. `job`: the
// job as it stands; `draft`: the same job without measured kernels. DeviceError when not even one
// sample or class fits.
Largest largest(const Job& job, const Job& draft, Registry& registry, Quantity quantity,
                std::size_t budget);

// "16GiB", "900 MiB", "123456" -> bytes. ConfigError when it is none.
std::size_t bytes_of(const std::string& text);

}  // namespace ftrain::launch
