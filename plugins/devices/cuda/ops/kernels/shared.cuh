// The shared memory of a block: only what the launch asks for, so that every byte of it is the
// launch's to count and the host's to change.
#pragma once

#include <cuda_runtime.h>

namespace ftrain::cuda {

// Where it begins, 16-byte aligned. Kernels that want several arrays cut them off one after
// another.
template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

}  // namespace ftrain::cuda
