// The CUDA device's kernels, by family. Each function adds its family to a list, as on the CPU.
//
// Kernels take row-major tensors, and activations [N, C, H, W] in channels-last order where their
// layout says so (layout.h). launch() only enqueues on the context's stream: it neither allocates
// nor waits, so that a whole step can be captured. Priorities: 10 own kernels, 20 fused ones, 30
// cuDNN and cuBLASLt.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ftrain/cuda/context.h"
#include "ftrain/device/kernel.h"

namespace ftrain::cuda {

class Cudnn;     // cudnn/cudnn.h
class Cublas;    // cublaslt/cublas.h
class HostLane;  // host_work.h

// What KernelEnvironment::device points to.
struct Context : LaunchContext {
  // Beside the stream, for what a kernel prefetches; joined with it again by the kernel itself.
  cudaStream_t copies = nullptr;
  // Of the second cache what a walk over class centers may fill with a tile.
  std::int64_t tile_bytes = 24 << 20;
  bool tf32 = false;         // products and convolutions of f32 may round their operands to tf32
  Cudnn* cudnn = nullptr;    // nullptr: convolutions by own kernels
  Cublas* cublas = nullptr;  // nullptr: products by own kernels
  HostLane* host = nullptr;  // of this stream, for collectives through the host's memory
};

inline const Context& context_of(const KernelEnvironment& environment) {
  return *static_cast<const Context*>(environment.device);
}

void add_pointwise_kernels(KernelList& list);      // element by element, casts, copies, images
void add_reduction_kernels(KernelList& list);      // sums, norms of rows and of all tensors, guards
void add_update_kernels(KernelList& list);         // optimizers, running statistics
void add_normalization_kernels(KernelList& list);  // batch norm both ways, alone and fused
void add_depthwise_kernels(KernelList& list);      // convolutions with few channels a group
void add_class_center_kernels(KernelList& list);   // the walks over class centers, sampling
void add_cudnn_kernels(KernelList& list);          // cudnn/: convolutions
void add_product_kernels(KernelList& list);        // products of matrices by own kernels
void add_cublas_kernels(KernelList& list);         // cublaslt/: products of matrices
void add_collective_kernels(KernelList& list);     // collectives over a Communicator

}  // namespace ftrain::cuda
