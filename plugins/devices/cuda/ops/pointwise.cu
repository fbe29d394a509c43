// What goes over tensors element by element. What copies stands in copies.cu.
#include "ftrain/ops/random.h"
#include "plugins/devices/cuda/ops/kernels/image.cuh"
#include "plugins/devices/cuda/ops/kernels/pointwise.cuh"
#include "plugins/devices/cuda/ops/pointwise.h"

namespace ftrain::cuda {
namespace {

// ---- f(x) and f(a, b)
template <class F>
std::unique_ptr<Kernel> make_one(const Node& node, const KernelEnvironment& environment, F f) {
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    return kernel_of(
        environment,
        [f, n = elements(node.outputs[0]), &context](const Buffers& at, cudaStream_t stream) {
          const Span<T> span = span_of<T>(n, {at.inputs[0], at.outputs[0]});
          launch(map_one<T, F>, flat_grid(span, context), stream, f, span, at.input<T>(0),
                 at.output<T>(0));
        },
        {.overwrites = 0});
  });
}

template <class F>
std::unique_ptr<Kernel> make_two(const Node& node, const KernelEnvironment& environment, F f) {
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    return kernel_of(
        environment,
        [f, n = elements(node.outputs[0]), &context](const Buffers& at, cudaStream_t stream) {
          const Span<T> span = span_of<T>(n, {at.inputs[0], at.inputs[1], at.outputs[0]});
          launch(map_two<T, F>, flat_grid(span, context), stream, f, span, at.input<T>(0),
                 at.input<T>(1), at.output<T>(0));
        },
        {.overwrites = 0});
  });
}

template <class F>
KernelDef one(std::string_view op, F) {
  return {.op = op,
          .name = own_name,
          .priority = 10,
          .refuse = refuse_unlike,
          .make = [](const Node& node, const KernelEnvironment& environment) {
            return make_one(node, environment, F{});
          }};
}

template <class F>
KernelDef two(std::string_view op, F) {
  return {.op = op,
          .name = own_name,
          .priority = 10,
          .refuse = refuse_unlike,
          .make = [](const Node& node, const KernelEnvironment& environment) {
            return make_two(node, environment, F{});
          }};
}

// f(x, parameter of its channel): of images in both orders and of matrices.
template <class F>
KernelDef by_channel(std::string_view op, F) {
  return {.op = op,
          .name = own_name,
          .priority = 10,
          .refuse = refuse_unlike,
          .make = [](const Node& node, const KernelEnvironment& environment) {
            const auto make = [&]<class T>(T) {
              const TensorType& type = node.outputs[0];
              const ChannelOrder order(type);
              const Context& context = context_of(environment);
              return kernel_of(
                  environment,
                  [n = elements(type), channels = Channels{order.channels, order.inner}, &context](
                      const Buffers& at, cudaStream_t stream) {
                    const Span<T> span = span_of<T>(n, {at.inputs[0], at.outputs[0]});
                    launch(map_channels<T, F>, flat_grid(span, context), stream, F{}, channels,
                           span, at.input<T>(0), at.input<float>(1), at.output<T>(0));
                  },
                  {.overwrites = 0});
            };
            return with_storage(node.outputs[0].dtype, make);
          }};
}

std::unique_ptr<Kernel> make_scale(const Node& node, const KernelEnvironment& environment) {
  return make_one(node, environment, Scale{static_cast<float>(node.attributes.number("factor"))});
}

std::unique_ptr<Kernel> make_shift(const Node& node, const KernelEnvironment& environment) {
  return make_one(node, environment, Shift{static_cast<float>(node.attributes.number("summand"))});
}

template <class F>
F bounded(const Node& node) {
  return {static_cast<float>(node.attributes.number("low")),
          static_cast<float>(node.attributes.number("high"))};
}

std::unique_ptr<Kernel> make_clamp(const Node& node, const KernelEnvironment& environment) {
  return make_one(node, environment, bounded<Clamp>(node));
}

std::unique_ptr<Kernel> make_clamp_grad(const Node& node, const KernelEnvironment& environment) {
  return make_two(node, environment, bounded<ClampGradient>(node));
}

// Rows of a matrix times a factor each: a row is a channel of one long sample.
std::unique_ptr<Kernel> make_scale_rows(const Node& node, const KernelEnvironment& environment) {
  const Shape& shape = node.outputs[0].shape;
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    return kernel_of(
        environment,
        [rows = Channels{shape[0], shape[1]}, &context](const Buffers& at, cudaStream_t stream) {
          const std::int64_t n = rows.channels * rows.inner;
          if (n == 0) return;
          const Span<T> span = span_of<T>(n, {at.inputs[0], at.outputs[0]});
          launch(map_channels<T, Times>, flat_grid(span, context), stream, Times{}, rows, span,
                 at.input<T>(0), at.input<float>(1), at.output<T>(0));
        },
        {.overwrites = 0});
  });
}

std::unique_ptr<Kernel> make_scale_by(const Node& node, const KernelEnvironment& environment) {
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    return kernel_of(
        environment,
        [n = elements(node.outputs[0]), &context](const Buffers& at, cudaStream_t stream) {
          const Span<T> span = span_of<T>(n, {at.inputs[0], at.outputs[0]});
          launch(scale_by<T>, flat_grid(span, context), stream, span, at.input<T>(0),
                 at.input<float>(1), at.output<T>(0));
        },
        {.overwrites = 0});
  });
}

std::unique_ptr<Kernel> make_dropout(const Node& node, const KernelEnvironment& environment) {
  const TensorType& type = node.outputs[0];
  const Attributes& a = node.attributes;
  const double p = a.number("p");
  Dropout drop{.key = mix64(static_cast<std::uint64_t>(a.integer("seed")), dropout_purpose),
               .first = a.integer("first_sample") * (elements(type) / type.shape[0]),
               .channels = 1,
               .positions = 1,
               .chance = static_cast<float>(p),
               .factor = static_cast<float>(1 / (1 - p))};
  if (type.layout == channels_last) {
    const ChannelOrder order(type);
    drop.channels = order.channels;
    drop.positions = order.positions;
  }
  return with_storage(type.dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    return kernel_of(environment,
                     [drop, n = elements(type), &context](const Buffers& at, cudaStream_t stream) {
                       const Span<T> span = span_of<T>(n, {at.inputs[0], at.outputs[0]});
                       launch(dropout<T>, flat_grid(span, context), stream, drop, span,
                              at.input<T>(0), at.input<std::int64_t>(1), at.output<T>(0));
                     },
                     {.overwrites = 0});
  });
}

// ---- images
std::string refuse_image(const Node& node, const KernelEnvironment& environment) {
  if (!node.input(0).layout.empty())
    return "wants images as they come, not " + node.input(0).text();
  return refuse_storage(node, environment);
}

template <class T, bool last>
void launch_images(const ImageTransform& of, const Context& context, const Buffers& at,
                   cudaStream_t stream) {
  const bool fours = of.width % 4 == 0 && aligned({at.inputs[0], at.outputs[0]});
  const std::int64_t runs = of.height * of.width / (fours ? 4 : 1);
  Grid grid;
  grid.blocks = dim3(resident_blocks(runs, context),
                     static_cast<unsigned>(std::min<std::int64_t>(of.batch, 65535)));
  launch(fours ? normalize_images<T, last, 4> : normalize_images<T, last, 1>, grid, stream, of,
         at.input<std::uint8_t>(0), at.input<std::int64_t>(1), at.output<T>(0));
}

std::unique_ptr<Kernel> make_image(const Node& node, const KernelEnvironment& environment) {
  const Shape& shape = node.input(0).shape;
  const Attributes& a = node.attributes;
  const ImageTransform of{.batch = shape[0],
                          .height = shape[1],
                          .width = shape[2],
                          .first_sample = a.integer("first_sample"),
                          .key = mix64(static_cast<std::uint64_t>(a.integer("seed")), flip_purpose),
                          .mean = static_cast<float>(a.number("mean")),
                          .scale = static_cast<float>(a.number("scale")),
                          .flip = static_cast<float>(a.number("flip"))};
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    const bool last = node.outputs[0].layout == channels_last;
    return kernel_of(environment, [=, &context](const Buffers& at, cudaStream_t stream) {
      if (last)
        launch_images<T, true>(of, context, at, stream);
      else
        launch_images<T, false>(of, context, at, stream);
    });
  });
}

}  // namespace

void add_pointwise_kernels(KernelList& list) {
  list.add(two("add", Plus{}));
  list.add(two("mul", Times{}));
  list.add(two("relu_grad", RectifyGradient{}));
  list.add(by_channel("prelu", LeakBelowZero{}));
  list.add(by_channel("add_bias", Plus{}));
  list.add({"scale", own_name, 10, refuse_unlike, make_scale});
  list.add(one("relu", Rectify{}));
  list.add(one("sqrt", SquareRoot{}));
  list.add(one("reciprocal", Reciprocal{}));
  list.add({"shift", own_name, 10, refuse_unlike, make_shift});
  list.add({"clamp", own_name, 10, refuse_unlike, make_clamp});
  list.add({"clamp_grad", own_name, 10, refuse_unlike, make_clamp_grad});
  list.add({"scale_rows", own_name, 10, refuse_unlike, make_scale_rows});
  list.add({"scale_by", own_name, 10, refuse_unlike, make_scale_by});
  list.add({"dropout", own_name, 10, refuse_unlike, make_dropout});
  list.add({"image_normalize", own_name, 10, refuse_image, make_image});
  add_copy_kernels(list);
  add_scalar_kernels(list);
}

}  // namespace ftrain::cuda
