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

#include "ftrain/model/update_scalars.h"
#include "ftrain/plugin/api.h"
