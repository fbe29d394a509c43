// What a kernel of the device named "cuda" is told of its GPU: what KernelEnvironment::device
// points to there, and there alone.
//
//   const auto& context = cuda::launch_context(environment);
//   ...
//   my_kernel<<<blocks, threads, 0, context.stream>>>(...);  // or cuda::launch(): cuda/launch.cuh
//
// launch() of a kernel only enqueues on that stream: it neither allocates nor waits, so that a
// whole step can be recorded and replayed. Ownership: the device's; it outlives the kernels.
// Threads: the rank's own, with its GPU current. Needs no header of CUDA.
#pragma once

#include "ftrain/device/kernel.h"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace ftrain::cuda {

struct LaunchContext {
  CUstream_st* stream = nullptr;
  int multiprocessors = 1;  // of the GPU: how many blocks are worth having
};

inline const LaunchContext& launch_context(const KernelEnvironment& environment) {
  return *static_cast<const LaunchContext*>(environment.device);
}

}  // namespace ftrain::cuda
