// The convolution of last resort and its gradients.
#include "plugins/devices/cuda/ops/convolution.h"

#include "plugins/devices/cuda/ops/kernels/moments.cuh"

namespace ftrain::cuda {
namespace {

constexpr std::string_view direct_name = "direct";
constexpr int direct_priority = 1;

std::unique_ptr<Kernel> make_forward(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes types = convolution_types(node);
  const ConvolutionShape shape = shape_of(types, node.attributes);
  const unsigned blocks = resident_blocks(elements(types.y), context_of(environment));
  return with_weights(types, [&]<class T, class P>(T, P) {
    return kernel_of(environment, [shape, blocks](const Buffers& at, cudaStream_t stream) {
      launch(convolve<T, P>, Grid{.blocks = {blocks}}, stream, shape, at.input<T>(0),
             at.input<P>(1), at.output<T>(0));
    });
  });
}

std::unique_ptr<Kernel> make_input_grad(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes types = convolution_types(node);
  const ConvolutionShape shape = shape_of(types, node.attributes);
  const unsigned blocks = resident_blocks(elements(types.x), context_of(environment));
  return with_weights(types, [&]<class T, class P>(T, P) {
    return kernel_of(environment, [shape, blocks](const Buffers& at, cudaStream_t stream) {
      launch(convolve_back<T, P>, Grid{.blocks = {blocks}}, stream, shape, at.input<T>(0),
             at.input<P>(1), at.output<T>(0));
    });
  });
}

}  // namespace

void finish_weight_gradient(const ConvolutionShape& shape, int blocks, const double* partials,
                            float* dw, cudaStream_t stream) {
  const int weights = shape.kernels * shape.group_channels * shape.rows * shape.columns;
  const Grid grid{.blocks = {blocks_for(weights, norms::finish_lanes)},
                  .threads = norms::finish_threads,
                  .shared = norms::finish_bytes<StoreWeight>()};
  launch(norms::finish_pass<StoreWeight>, grid, stream, StoreWeight{shape, dw}, partials, weights,
         1, blocks);
}

std::unique_ptr<Kernel> make_direct_weight_grad(const Node& node,
                                                const KernelEnvironment& environment) {
  constexpr unsigned threads = 256;
  const ConvolutionTypes types = convolution_types(node);
  const ConvolutionShape shape = shape_of(types, node.attributes);
  const int weights = static_cast<int>(elements(types.weight));
  const unsigned blocks = blocks_for(weights, threads);
  // Few weights are summed by several threads each, over parts of the batch.
  const auto splits = static_cast<unsigned>(std::clamp<std::int64_t>(
      context_of(environment).multiprocessors * 8 / blocks, 1, types.x.shape[0]));
  const std::size_t scratch =
      std::size_t{splits} * static_cast<std::size_t>(weights) * sizeof(double);
  return with_storage(types.x.dtype, [&]<class T>(T) {
    return kernel_of(environment,
                     [=](const Buffers& at, cudaStream_t stream) {
                       auto* const partials = static_cast<double*>(at.scratch);
                       launch(sum_weight_gradients<T>,
                              Grid{.blocks = {blocks, splits}, .threads = threads}, stream, shape,
                              weights, at.input<T>(0), at.input<T>(1), partials);
                       finish_weight_gradient(shape, static_cast<int>(splits), partials,
                                              at.output<float>(0), stream);
                     },
                     {.scratch = scratch});
  });
}

void add_direct_convolutions(KernelList& list) {
  const auto add = [&](std::string_view op, auto make) {
    list.add({.op = op,
              .name = direct_name,
              .priority = direct_priority,
              .refuse = refuse_convolution,
              .make = make});
  };
  add("conv2d", make_forward);
  add("conv2d_input_grad", make_input_grad);
  add("conv2d_weight_grad", make_direct_weight_grad);
}

}  // namespace ftrain::cuda
