#include "plugins/devices/cuda/rewrite/target.h"

#include <utility>

#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/device/store.h"
#include "plugins/devices/cuda/rewrite/layouts.h"
#include "plugins/devices/cuda/rewrite/merge_running.h"
#include "plugins/devices/cuda/rewrite/working_copies.h"

namespace ftrain::cuda {
namespace {

KernelEnvironment environment_of(const Context& context, Communicator* communicator) {
  return {.threads = 1, .isa = {}, .communicator = communicator, .device = &context};
}

}  // namespace

CudaTarget::CudaTarget(const KernelList& kernels, const Context& context, const Context& beside,
                       Communicator* communicator, const TargetOptions& options)
    : kernels_(kernels),
      environment_(environment_of(context, communicator)),
      beside_(environment_of(beside, communicator)) {
  options_.recompute = options.recompute;
  if (options.precision == "bf16") options_.narrow = DType::bf16;
  if (options.precision == "fp16") options_.narrow = DType::f16;
  options_.overlap = options.advance;
  options_.alignment = alignment;
  options_.host_apart = true;
}

KernelEnvironment CudaTarget::environment(const Node&, bool beside) const {
  return beside ? beside_ : environment_;
}

std::unique_ptr<Graph> CudaTarget::rewrite(Place place, std::unique_ptr<Graph> graph) {
  return place == Place::fused ? merge_running(*graph) : std::move(graph);
}

std::unique_ptr<Graph> CudaTarget::arrange(std::unique_ptr<Graph> graph, const StateStore* store) {
  return assign_layouts(*graph, kernels_, environment_, store);
}

Rewritten CudaTarget::finish(std::unique_ptr<Graph> graph) {
  return add_working_copies(*graph);
}

// Norms of images in either order, and of matrices [N, C].
bool CudaTarget::takes_fused_norm(const TensorType& x) const {
  if (x.dtype != DType::f32 && x.dtype != DType::bf16 && x.dtype != DType::f16) return false;
  return x.layout == row_major || x.layout == channels_last;
}

}  // namespace ftrain::cuda
