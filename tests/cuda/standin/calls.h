// What all calls of the runtime have in common.
#pragma once

#include <cuda_runtime_api.h>

#include "tests/cuda/standin/standin.h"

namespace standin {

// Why the call is not made at all: injected, an error that ended all work, or asked from a host
// function.
cudaError_t refuse_call(const char* call);
// Whether an injected failure of this name is due.
cudaError_t injected(const char* call);
// For cudaGetLastError().
cudaError_t keep(cudaError_t error);

template <class F>
cudaError_t answer(const char* call, F f) {
  cudaError_t error = refuse_call(call);
  if (error == cudaSuccess) error = f();
  return keep(error);
}

int current_device();
Hardware hardware();
Settings settings();
// For calls that CUDA counts as unsafe during a capture: the error, and the capture is spoiled.
cudaError_t refuse_while_capturing();

}  // namespace standin
