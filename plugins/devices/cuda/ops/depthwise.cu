// Convolutions with one or two channels a group: their kernels in channels-last order.
#include "plugins/devices/cuda/ops/kernels/depthwise.cuh"

#include "plugins/devices/cuda/ops/convolution.h"

namespace ftrain::cuda {
namespace {

constexpr std::string_view depthwise_name = "depthwise";
// Above cuDNN's: its grouped convolutions are made for wide groups.
constexpr int depthwise_priority = 40;
constexpr std::int64_t most_lanes = 32;
constexpr std::size_t most_shared = 48 << 10;

// How the threads of a block lie over channels, and blocks over channels and `pieces` of positions.
struct NarrowSpread {
  Grid grid;
  int lanes = 1;

  NarrowSpread(int channels, std::int64_t pieces, std::int64_t pieces_of_thread,
               const Context& context) {
    const std::int64_t vectors = channels / narrow_width;
    const std::int64_t across = (vectors + most_lanes - 1) / most_lanes;
    lanes = static_cast<int>((vectors + across - 1) / across);
    const int slices = 256 / lanes;
    grid.threads = static_cast<unsigned>(slices * lanes);
    const std::int64_t room =
        std::clamp<std::int64_t>(8 * std::int64_t{context.multiprocessors} / across, 1, 65535);
    const std::int64_t of_block = slices * pieces_of_thread;
    grid.blocks =
        dim3(static_cast<unsigned>(across), static_cast<unsigned>(std::clamp<std::int64_t>(
                                                (pieces + of_block - 1) / of_block, 1, room)));
  }
};

std::size_t staged_bytes(const ConvolutionShape& shape, int lanes) {
  return static_cast<std::size_t>(shape.rows * shape.columns * shape.group_channels * lanes *
                                  narrow_width) *
         sizeof(float);
}

std::string refuse_depthwise(const Node& node, const KernelEnvironment& environment) {
  if (std::string reason = refuse_convolution(node, environment); !reason.empty()) return reason;
  const ConvolutionTypes types = convolution_types(node);
  if (types.weight.dtype != DType::f32) return "wants weights in f32, not " + types.weight.text();
  if (!lies_channels_last(types.x) || !lies_channels_last(types.y)) {
    return "is for channels-last activations, not " + types.x.text();
  }
  const ConvolutionShape shape = shape_of(types, node.attributes);
  if (shape.group_channels != shape.group_kernels || shape.group_channels > 2) {
    return "is for groups of one or two channels and as many kernels";
  }
  if (shape.channels % narrow_width != 0) return "wants channels in fours";
  if (staged_bytes(shape, most_lanes) > most_shared) return "is for smaller kernels";
  return {};
}

// f(std::integral_constant<int, group>{})
template <class F>
auto with_group(int group, const F& f) {
  return group == 1 ? f(std::integral_constant<int, 1>{}) : f(std::integral_constant<int, 2>{});
}

// 3x3 kernels are done in strips of this many outputs.
constexpr int strip_length(int stride) {
  return stride == 1 ? 4 : 2;
}
bool has_strips(const ConvolutionShape& shape) {
  return shape.rows == 3 && shape.columns == 3 && shape.stride <= 2 && shape.padding <= 2;
}
std::int64_t strips(const ConvolutionShape& shape) {
  const int length = strip_length(shape.stride);
  return std::int64_t{shape.batch} * shape.out_height * ((shape.out_width + length - 1) / length);
}

// `turned`: inputs 0 and output 0 are dy and dx of a convolution that `shape` undoes.
template <class T, int group, int stride>
std::unique_ptr<Kernel> strips_kernel(const ConvolutionShape& shape, bool turned,
                                      const KernelEnvironment& environment) {
  NarrowSpread spread(shape.kernels, strips(shape), 1, context_of(environment));
  spread.grid.shared = staged_bytes(shape, spread.lanes);
  return kernel_of(environment, [shape, spread, turned](const Buffers& at, cudaStream_t stream) {
    launch(convolve_strips<T, group, 3, stride, strip_length(stride)>, spread.grid, stream, shape,
           spread.lanes, turned, at.input<T>(0), at.input<float>(1), at.output<T>(0));
  });
}

std::unique_ptr<Kernel> make_forward(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes types = convolution_types(node);
  const ConvolutionShape shape = shape_of(types, node.attributes);
  return with_storage(types.x.dtype, [&]<class T>(T) {
    return with_group(shape.group_channels, [&](auto of) -> std::unique_ptr<Kernel> {
      constexpr int group = decltype(of)::value;
      if (has_strips(shape)) {
        return shape.stride == 1 ? strips_kernel<T, group, 1>(shape, false, environment)
                                 : strips_kernel<T, group, 2>(shape, false, environment);
      }
      NarrowSpread spread(shape.kernels,
                          std::int64_t{shape.batch} * shape.out_height * shape.out_width, 1,
                          context_of(environment));
      spread.grid.shared = staged_bytes(shape, spread.lanes);
      return kernel_of(environment, [shape, spread](const Buffers& at, cudaStream_t stream) {
        launch(convolve_windows<T, group>, spread.grid, stream, shape, spread.lanes, at.input<T>(0),
               at.input<float>(1), at.output<T>(0));
      });
    });
  });
}

// The convolution that makes dx out of dy where the stride is 1.
ConvolutionShape turned_shape(const ConvolutionShape& of) {
  ConvolutionShape turned = of;
  std::swap(turned.height, turned.out_height);
  std::swap(turned.width, turned.out_width);
  std::swap(turned.x, turned.y);
  turned.padding = of.rows - 1 - of.padding;
  return turned;
}

std::unique_ptr<Kernel> make_input_grad(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes types = convolution_types(node);
  const ConvolutionShape shape = shape_of(types, node.attributes);
  return with_storage(types.x.dtype, [&]<class T>(T) {
    return with_group(shape.group_channels, [&](auto of) -> std::unique_ptr<Kernel> {
      constexpr int group = decltype(of)::value;
      if (has_strips(shape) && shape.stride == 1) {
        return strips_kernel<T, group, 1>(turned_shape(shape), true, environment);
      }
      NarrowSpread spread(shape.channels, std::int64_t{shape.batch} * shape.height * shape.width, 1,
                          context_of(environment));
      spread.grid.shared = staged_bytes(shape, spread.lanes);
      return kernel_of(environment, [shape, spread](const Buffers& at, cudaStream_t stream) {
        launch(convolve_windows_back<T, group>, spread.grid, stream, shape, spread.lanes,
               at.input<T>(0), at.input<float>(1), at.output<T>(0));
      });
    });
  });
}

template <class T, int group, int stride>
std::unique_ptr<Kernel> strip_gradients(const ConvolutionShape& shape,
                                        const KernelEnvironment& environment) {
  constexpr std::int64_t strips_of_thread = 8;  // fewer would make many partial sums
  NarrowSpread spread(shape.kernels, strips(shape), strips_of_thread, context_of(environment));
  spread.grid.shared = spread.grid.threads * narrow_width * sizeof(float);
  const std::size_t weights = std::size_t{9} * group * static_cast<std::size_t>(shape.kernels);
  return kernel_of(environment,
                   [shape, spread](const Buffers& at, cudaStream_t stream) {
                     auto* const partials = static_cast<double*>(at.scratch);
                     launch(sum_strip_gradients<T, group, 3, stride, strip_length(stride)>,
                            spread.grid, stream, shape, spread.lanes, at.input<T>(0),
                            at.input<T>(1), partials);
                     finish_weight_gradient(shape, static_cast<int>(spread.grid.blocks.y), partials,
                                            at.output<float>(0), stream);
                   },
                   {.scratch = spread.grid.blocks.y * weights * sizeof(double)});
}

std::unique_ptr<Kernel> make_weight_grad(const Node& node, const KernelEnvironment& environment) {
  const ConvolutionTypes types = convolution_types(node);
  const ConvolutionShape shape = shape_of(types, node.attributes);
  if (!has_strips(shape)) return make_direct_weight_grad(node, environment);
  return with_storage(types.x.dtype, [&]<class T>(T) {
    return with_group(shape.group_channels, [&](auto of) {
      constexpr int group = decltype(of)::value;
      return shape.stride == 1 ? strip_gradients<T, group, 1>(shape, environment)
                               : strip_gradients<T, group, 2>(shape, environment);
    });
  });
}

std::string refuse_weight_grad(const Node& node, const KernelEnvironment& environment) {
  if (std::string reason = refuse_depthwise(node, environment); !reason.empty()) return reason;
  const ConvolutionShape shape = shape_of(convolution_types(node), node.attributes);
  // A kernel over the whole image meets every element of x once: a thread a weight reads no more.
  const bool whole = shape.out_height * shape.out_width == 1;
  return has_strips(shape) || whole ? "" : "is for 3x3 kernels and those of one output";
}

}  // namespace

void add_depthwise_kernels(KernelList& list) {
  const auto add = [&](std::string_view op, auto refuse, auto make) {
    list.add({.op = op,
              .name = depthwise_name,
              .priority = depthwise_priority,
              .refuse = refuse,
              .make = make});
  };
  add("conv2d", refuse_depthwise, make_forward);
  add("conv2d_input_grad", refuse_depthwise, make_input_grad);
  add("conv2d_weight_grad", refuse_weight_grad, make_weight_grad);
  add_direct_convolutions(list);
}

}  // namespace ftrain::cuda
