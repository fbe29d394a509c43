// What an update of parameters is told of its step. Plain data, which nvcc compiles too.
#pragma once

#include <cstdint>

namespace ftrain {

struct UpdateScalars {
  double rate = 0;         // the schedule's rate times the tensor's factor
  double decay = 0;        // the tensor's weight decay
  double coefficient = 1;  // the gradient is multiplied with it first
  // The number of this update, from 1 on: of the step, skipped ones counted too; or of the row of
  // class centers, where the optimizer counts rows (Optimizer::counts_rows).
  std::int64_t step = 1;
};

}  // namespace ftrain
