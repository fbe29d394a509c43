// All kernels of the CUDA device, as it chooses among them and its rewrites ask them.
#pragma once

#include <memory>

#include "core/compile/compiler.h"
#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "plugins/devices/cuda/cudnn/cudnn.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/rewrite/target.h"

namespace ftrain::cuda {

// What the device has of kernels; convolutions and products are the stand-in's.
struct Kernels {
  KernelList list;
  std::unique_ptr<Cudnn> cudnn = open_cudnn({});
  std::unique_ptr<Cublas> cublas = open_cublas({});
  Context context;
  KernelEnvironment environment;

  Kernels() {
    add_pointwise_kernels(list);
    add_reduction_kernels(list);
    add_update_kernels(list);
    add_normalization_kernels(list);
    add_depthwise_kernels(list);
    add_class_center_kernels(list);
    add_cudnn_kernels(list);
    add_product_kernels(list);
    add_cublas_kernels(list);
    add_collective_kernels(list);
    context.multiprocessors = 4;
    context.cudnn = cudnn.get();
    context.cublas = cublas.get();
    environment.device = &context;
  }
};

inline const Kernels& kernels() {
  static const Kernels made;
  return made;
}

inline Rewritten rewritten(const Graph& graph, const TargetOptions& options = {},
                           const StateStore* store = nullptr) {
  CudaTarget target(kernels().list, kernels().context, kernels().context, nullptr, options);
  return rewrite_graph(graph, target, store);
}

}  // namespace ftrain::cuda
