// What an optimizer's formula is, to the host (ftrain/optimizer/update_cpu.h) and to CUDA
// (ftrain/optimizer/update_cuda.cuh) alike: a small trivially copyable struct
//
//   struct Formula {
//     static constexpr int slots = 1;
//     // What the elements of a call have in common, worked out before the first of them.
//     template <class T>
//     struct Step {
//       T rate;
//       // One element and its slots, in place.
//       FTRAIN_HD void operator()(T& weight, T& slot, T gradient) const;
//     };
//     template <class T>
//     FTRAIN_HD Step<T> prepare(const UpdateScalars& scalars) const;
//   };
//
// The gradient comes as it is: the formula multiplies it with the coefficient. A call is for a run
// of elements of one tensor on the host, for what one thread updates on CUDA. Both functions are
// called from many threads at once and cannot fail.
#pragma once

#include <cstdint>

#include "ftrain/plugin/api.h"

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
