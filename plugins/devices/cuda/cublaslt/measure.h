// Running an algorithm of cuBLASLt, and finding the fastest of several by running them.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "core/compile/tuning_cache.h"
#include "plugins/devices/cuda/cublaslt/problem.h"

namespace ftrain::cuda {

struct Candidate {
  cublasLtMatmulAlgo_t algorithm;
  std::size_t workspace = 0;  // bytes
};

inline constexpr std::size_t workspace_alignment = 256;

// Enqueues it. `scratch`: the candidate's workspace and workspace_alignment more.
cublasStatus_t multiply(cublasLtHandle_t handle, const Problem& problem, const Candidate& candidate,
                        const void* a, const void* b, float* c, bool add, void* scratch,
                        cudaStream_t stream);

// By running each on memory and a stream of its own, which are given back. Nothing when there is no
// memory for it, or no candidate runs. Waits for the device; not to be called while a stream is
// captured in this thread.
std::optional<Answer> fastest(cublasLtHandle_t handle, const ProductShape& shape,
                              const Problem& problem, const std::vector<Candidate>& candidates);

}  // namespace ftrain::cuda
