// Threads for kernels of the device named "cpu": OpenMP's, as that device's own kernels use them.
//
//   cpu::parallel_runs(count, environment.threads, [&](std::int64_t begin, std::int64_t end)
//   {...});
//
// The device has set how many threads a rank has and where they run; a kernel asks for no more than
// KernelEnvironment::threads and starts none of its own. Both functions do each item in one thread
// and once; an item's result must not depend on which thread does it or on the others, so that
// every number of threads gives the same. Compiled without OpenMP they run on the calling thread
// alone: link OpenMP::OpenMP_CXX. Failure: what is called must not throw.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ftrain::cpu {

// f(i) for 0 <= i < items, each thread a run of neighbours.
template <class F>
void parallel_for(std::int64_t items, int threads, const F& f) {
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (items > 1 && threads > 1)
#endif
  for (std::int64_t i = 0; i < items; ++i) f(i);
  static_cast<void>(threads);
}

// f(begin, end) for the parts of [0, count), one a thread, each a multiple of `grain` but the last.
// What is too short for more than one part runs on the calling thread.
template <class F>
void parallel_runs(std::int64_t count, int threads, const F& f, std::int64_t grain = 1024) {
  const std::int64_t grains = (count + grain - 1) / grain;
  const std::int64_t parts =
      std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(grains, 1));
  const std::int64_t each = (grains + parts - 1) / parts * grain;
  parallel_for(parts, threads, [&](std::int64_t part) {
    const std::int64_t begin = part * each, end = std::min(count, begin + each);
    if (begin < end) f(begin, end);
  });
}

}  // namespace ftrain::cpu
