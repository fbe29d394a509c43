// Sums over columns of matrices and over channels of images, and what is made of them.
#include "plugins/devices/cuda/ops/columns.h"

#include <bit>

#include "plugins/devices/cuda/ops/kernels/reduction.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {
namespace {

constexpr unsigned threads = 256;

std::int64_t quotient(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Into how many runs `rows` are cut, each a block's for every `across` columns: enough blocks to
// fill the device, but runs long enough to be worth a block.
std::int64_t runs_of(std::int64_t rows, std::int64_t least, std::int64_t columns,
                     std::int64_t across, const Context& context) {
  const std::int64_t most = std::max<std::int64_t>(
      std::int64_t{context.multiprocessors} * 8 / quotient(columns, across), 1);
  const std::int64_t wanted =
      std::clamp<std::int64_t>(rows / least, 1, std::min<std::int64_t>(most, 65535));
  return quotient(std::max<std::int64_t>(rows, 1),
                  quotient(std::max<std::int64_t>(rows, 1), wanted));
}

std::size_t parts_bytes(std::int64_t runs, std::int64_t columns) {
  return runs == 1 ? 0 : static_cast<std::size_t>(runs * columns) * sizeof(double);
}

template <class Y>
void launch_parts(const Buffers& at, std::int64_t runs, std::int64_t columns, Y* y,
                  cudaStream_t stream) {
  if (runs == 1) return;
  constexpr unsigned few = 128;
  launch(sum_parts<Y>,
         {.blocks = static_cast<unsigned>(columns),
          .threads = few,
          .shared = block_reduce_bytes<double>(few)},
         stream, static_cast<const double*>(at.scratch), runs, y);
}

// The columns of [rows, columns], `width` at once.
template <int width, class Term, class Y>
void launch_columns(const Term& term, std::int64_t rows, std::int64_t columns, std::int64_t runs,
                    const Buffers& at, Y* y, cudaStream_t stream) {
  const auto pieces = static_cast<std::uint64_t>(quotient(columns, width));
  const ColumnPass pass{
      .rows = rows,
      .columns = columns,
      .rows_of_block = quotient(std::max<std::int64_t>(rows, 1), runs),
      .lanes = static_cast<int>(std::min<std::uint64_t>(std::bit_ceil(pieces), 32))};
  Grid grid{.threads = threads, .shared = threads * width * sizeof(double)};
  grid.blocks = dim3(static_cast<unsigned>(quotient(columns, pass.lanes * width)),
                     static_cast<unsigned>(runs));
  launch(sum_columns<width, Term, Y>, grid, stream, term, pass, static_cast<double*>(at.scratch),
         y);
  launch_parts(at, runs, columns, y, stream);
}

// ---- sum_rows, sum_groups
std::string refuse_sum(const Node& node, const KernelEnvironment& environment) {
  if (!is_stored(node.input(0).dtype)) return "adds floats only, not " + node.input(0).text();
  if (node.outputs[0].dtype != DType::f32) return "gives f32, not " + node.outputs[0].text();
  return refuse_storage(node, environment);
}

std::unique_ptr<Kernel> make_sum_rows(const Node& node, const KernelEnvironment& environment) {
  const TensorType& type = node.input(0);
  const std::int64_t rows = type.shape[0], columns = type.shape[1];
  return with_storage(type.dtype, [&]<class T>(T) {
    const std::int64_t runs =
        runs_of(rows, 64, columns, 32 * packet_size<T>, context_of(environment));
    return kernel_of(environment,
                     [=](const Buffers& at, cudaStream_t stream) {
                       const Elements<T> term{at.input<T>(0)};
                       if (columns % packet_size<T> == 0 && aligned({at.inputs[0]}))
                         launch_columns<packet_size<T>>(term, rows, columns, runs, at,
                                                        at.output<float>(0), stream);
                       else
                         launch_columns<1>(term, rows, columns, runs, at, at.output<float>(0),
                                           stream);
                     },
                     {.scratch = parts_bytes(runs, columns)});
  });
}

// ---- prelu's gradient
template <class T>
std::unique_ptr<Kernel> make_by_columns(const ChannelOrder& order,
                                        const KernelEnvironment& environment) {
  const std::int64_t rows = order.samples * order.positions, columns = order.channels;
  const std::int64_t runs =
      runs_of(rows, 64, columns, 32 * packet_size<T>, context_of(environment));
  return kernel_of(
      environment,
      [=](const Buffers& at, cudaStream_t stream) {
        const SlopeGradient<T> term{at.input<T>(0), at.input<T>(1), at.input<float>(2),
                                    at.output<T>(0)};
        if (columns % packet_size<T> == 0 && aligned({at.inputs[0], at.inputs[1], at.outputs[0]})) {
          launch_columns<packet_size<T>>(term, rows, columns, runs, at, at.output<float>(1),
                                         stream);
        } else {
          launch_columns<1>(term, rows, columns, runs, at, at.output<float>(1), stream);
        }
      },
      {.scratch = parts_bytes(runs, columns), .overwrites = 0});
}

template <class T>
std::unique_ptr<Kernel> make_by_planes(const ChannelOrder& order,
                                       const KernelEnvironment& environment) {
  const std::int64_t least = quotient(4096, order.positions);
  const std::int64_t runs =
      runs_of(order.samples, least, order.channels, 1, context_of(environment));
  return kernel_of(environment,
                   [=](const Buffers& at, cudaStream_t stream) {
                     const SlopeGradient<T> term{at.input<T>(0), at.input<T>(1), at.input<float>(2),
                                                 at.output<T>(0)};
                     Grid grid{.threads = threads, .shared = block_reduce_bytes<double>(threads)};
                     grid.blocks =
                         dim3(static_cast<unsigned>(order.channels), static_cast<unsigned>(runs));
                     launch(sum_planes<SlopeGradient<T>, float>, grid, stream, term, order.samples,
                            order.channels, order.positions, quotient(order.samples, runs),
                            static_cast<double*>(at.scratch), at.output<float>(1));
                     launch_parts(at, runs, order.channels, at.output<float>(1), stream);
                   },
                   {.scratch = parts_bytes(runs, order.channels), .overwrites = 0});
}

std::unique_ptr<Kernel> make_prelu_grad(const Node& node, const KernelEnvironment& environment) {
  const ChannelOrder order(node.outputs[0]);
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    return order.inner == 1 ? make_by_columns<T>(order, environment)
                            : make_by_planes<T>(order, environment);
  });
}

// ---- average pools
std::unique_ptr<Kernel> make_pool(const Node& node, const KernelEnvironment& environment) {
  const ChannelOrder order(node.input(0));
  const Context& context = context_of(environment);
  return with_storage(node.input(0).dtype, [&]<class T>(T) {
    return kernel_of(environment, [=, &context](const Buffers& at, cudaStream_t stream) {
      const std::int64_t planes = order.samples * order.channels;
      const auto by_columns = [&]<int width>(std::integral_constant<int, width>) {
        // Few threads, each with much to read: in small blocks, so that all multiprocessors read.
        const Grid grid{.blocks = resident_blocks(planes / width, context, 64), .threads = 64};
        launch(pool_columns<T, width>, grid, stream, at.input<T>(0), order.samples, order.channels,
               order.positions, at.output<float>(0));
      };
      if (order.inner > 1) {
        launch(pool_planes<T>, {.blocks = resident_blocks(planes * warp_size, context)}, stream,
               at.input<T>(0), planes, order.positions, at.output<float>(0));
      } else if (order.channels % packet_size<T> == 0 && aligned({at.inputs[0]})) {
        by_columns(std::integral_constant<int, packet_size<T>>{});
      } else {
        by_columns(std::integral_constant<int, 1>{});
      }
    });
  });
}

std::string refuse_pool_grad(const Node& node, const KernelEnvironment& environment) {
  if (node.input(0).dtype != node.outputs[0].dtype || !is_stored(node.outputs[0].dtype)) {
    return "wants one type of floats, not " + node.input(0).text() + " and " +
           node.outputs[0].text();
  }
  return refuse_storage(node, environment);
}

std::unique_ptr<Kernel> make_pool_grad(const Node& node, const KernelEnvironment& environment) {
  const ChannelOrder order(node.outputs[0]);
  const Context& context = context_of(environment);
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    return kernel_of(environment, [=, n = elements(node.outputs[0]), &context](
                                      const Buffers& at, cudaStream_t stream) {
      const auto spread = [&]<int width, bool last>(std::integral_constant<int, width>,
                                                    std::bool_constant<last>) {
        launch(spread_over_positions<T, width, last>,
               {.blocks = resident_blocks(n / width, context)}, stream, at.input<T>(0), n,
               order.channels, order.positions, at.output<T>(0));
      };
      constexpr std::integral_constant<int, packet_size<T>> packets;
      constexpr std::integral_constant<int, 1> one;
      const bool last = order.inner == 1;
      const bool whole = (last ? order.channels : order.positions) % packet_size<T> == 0 &&
                         aligned({at.inputs[0], at.outputs[0]});
      if (last)
        whole ? spread(packets, std::true_type{}) : spread(one, std::true_type{});
      else
        whole ? spread(packets, std::false_type{}) : spread(one, std::false_type{});
    });
  });
}

}  // namespace

void add_column_kernels(KernelList& list) {
  list.add({"sum_rows", own_name, 10, refuse_sum, make_sum_rows});
  list.add({"sum_groups", own_name, 10, refuse_sum, make_sum_rows});
  list.add({"prelu_grad", own_name, 10, refuse_unlike, make_prelu_grad});
  list.add({"global_average_pool", own_name, 10, refuse_sum, make_pool});
  list.add({"global_average_pool_grad", own_name, 10, refuse_pool_grad, make_pool_grad});
}

}  // namespace ftrain::cuda
