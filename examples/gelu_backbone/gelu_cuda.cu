// The kernels for the device "cuda", over elements as they lie: what launch() enqueues on the
// stream that the device gives, which may be recorded and replayed.
#include <algorithm>
#include <memory>
#include <span>

#include "ftrain/cuda/launch.cuh"
#include "gelu.h"

namespace gelu {
namespace {

using ftrain::Kernel;
using ftrain::KernelEnvironment;
using ftrain::Node;

__global__ void forward(const float* x, float* y, std::int64_t elements) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < elements;
       i += step) {
    y[i] = Forward<float>::of(x[i]);
  }
}

__global__ void backward(const float* dy, const float* x, float* dx, std::int64_t elements) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < elements;
       i += step) {
    dx[i] = Backward<float>::of(dy[i], x[i]);
  }
}

template <bool gradient>
class Elementwise final : public Kernel {
 public:
  Elementwise(std::int64_t elements, const ftrain::cuda::LaunchContext& context)
      : elements_(elements), context_(context) {}
  int overwrites() const override { return gradient ? 1 : 0; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    x_ = static_cast<const float*>(inputs[gradient ? 1 : 0]);
    if constexpr (gradient) dy_ = static_cast<const float*>(inputs[0]);
    output_ = static_cast<float*>(outputs[0]);
  }
  void launch() override {
    const auto most = static_cast<unsigned>(context_.multiprocessors) * 8;
    const ftrain::cuda::Grid grid{.blocks = ftrain::cuda::blocks_for(elements_, 256, 4, most)};
    if constexpr (gradient)
      ftrain::cuda::launch(backward, grid, context_.stream, dy_, x_, output_, elements_);
    else
      ftrain::cuda::launch(forward, grid, context_.stream, x_, output_, elements_);
  }

 private:
  const std::int64_t elements_;
  const ftrain::cuda::LaunchContext& context_;
  const float *dy_ = nullptr, *x_ = nullptr;
  float* output_ = nullptr;
};

template <bool gradient>
std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<Elementwise<gradient>>(node.outputs[0].shape.elements(),
                                                 ftrain::cuda::launch_context(environment));
}

}  // namespace

void add_cuda_kernels(ftrain::Registry& registry) {
  ftrain::KernelDef def;
  def.name = "grid";
  def.priority = 10;
  def.refuse = refuse_but_f32;
  def.op = "gelu";
  def.make = make<false>;
  registry.add_kernel("cuda", def);
  def.op = "gelu_grad";
  def.make = make<true>;
  registry.add_kernel("cuda", def);
}

}  // namespace gelu
