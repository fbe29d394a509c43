// Sums over whole tensors, and what goes by rows. Sums over columns stand in columns.cu.
#include "plugins/devices/cuda/ops/columns.h"
#include "plugins/devices/cuda/ops/kernels/reduction.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {
namespace {

// ---- sums over tensors
// Inputs of one type, a table's worth.
struct TensorGroup {
  DType dtype = DType::f32;
  std::vector<std::size_t> inputs;
  SumTable table;
};

std::vector<TensorGroup> groups_of(const Node& node) {
  std::vector<TensorGroup> groups;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const TensorType& type = node.input(i);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const TensorGroup& of) {
      return of.dtype == type.dtype && of.table.tensors < SumTable::most;
    });
    if (group == groups.end()) {
      group = groups.insert(groups.end(), {.dtype = type.dtype, .inputs = {}, .table = {}});
    }
    SumTable& table = group->table;
    const std::int64_t count = elements(type);
    table.count[table.tensors] = count;
    const std::int64_t blocks = std::max<std::int64_t>((count + sum_part - 1) / sum_part, 1);
    table.first_block[table.tensors + 1] =
        table.first_block[table.tensors] + static_cast<std::int32_t>(blocks);
    ++table.tensors;
    group->inputs.push_back(i);
  }
  return groups;
}

std::string refuse_sum(const Node& node, const KernelEnvironment& environment) {
  for (const Value& input : node.inputs) {
    if (!is_stored(input.dtype())) return "adds floats only, not " + input.type().text();
  }
  if (node.outputs[0].dtype != DType::f32) return "gives f32, not " + node.outputs[0].text();
  return refuse_storage(node, environment);
}

template <class F>
std::unique_ptr<Kernel> make_sum(const Node& node, const KernelEnvironment& environment) {
  std::vector<TensorGroup> groups = groups_of(node);
  std::int64_t blocks = 0;
  for (const TensorGroup& group : groups) blocks += group.table.first_block[group.table.tensors];
  return kernel_of(environment,
                   [groups = std::move(groups), blocks](const Buffers& at, cudaStream_t stream) {
                     constexpr unsigned threads = 256;
                     constexpr std::size_t shared = block_reduce_bytes<double>(threads);
                     auto* partial = static_cast<double*>(at.scratch);
                     auto* const result = blocks == 1 ? at.output<float>(0) : nullptr;
                     for (const TensorGroup& group : groups) {
                       SumTable table = group.table;
                       for (int t = 0; t < table.tensors; ++t) {
                         table.at[t] = at.inputs[group.inputs[static_cast<std::size_t>(t)]];
                       }
                       const auto parts = static_cast<unsigned>(table.first_block[table.tensors]);
                       const Grid grid{.blocks = parts, .threads = threads, .shared = shared};
                       with_storage(group.dtype, [&]<class T>(T) {
                         launch(sum_tensors<T, F>, grid, stream, F{}, table, partial, result);
                       });
                       partial += parts;
                     }
                     if (blocks == 1) return;
                     launch(sum_parts<float>, {.threads = threads, .shared = shared}, stream,
                            static_cast<const double*>(at.scratch), blocks, at.output<float>(0));
                   },
                   {.scratch = static_cast<std::size_t>(blocks) * sizeof(double)});
}

// ---- by rows
std::string refuse_rows(const Node& node, const KernelEnvironment& environment) {
  const TensorType& like = node.outputs[0];
  for (const Value& input : node.inputs) {
    if (input.dtype() != like.dtype) {
      return "wants one type, not both " + like.text() + " and " + input.type().text();
    }
  }
  if (!is_stored(like.dtype)) return "is for floats only, not " + like.text();
  return refuse_storage(node, environment);
}

// f(grid, width): a block a row, and the elements that a thread takes at once.
template <class T, class F>
void by_rows(std::int64_t rows, std::int64_t columns, std::initializer_list<const void*> addresses,
             const F& f) {
  if (rows == 0) return;
  const bool packets = columns % packet_size<T> == 0 && aligned(addresses);
  const std::int64_t pieces = columns / (packets ? packet_size<T> : 1);
  Grid grid{.blocks = static_cast<unsigned>(rows), .threads = pieces > 128 ? 256u : 128u};
  grid.shared = block_reduce_bytes<double>(grid.threads);
  if (packets)
    f(grid, std::integral_constant<int, packet_size<T>>{});
  else
    f(grid, std::integral_constant<int, 1>{});
}

std::unique_ptr<Kernel> make_normalize(const Node& node, const KernelEnvironment& environment) {
  const Shape& shape = node.input(0).shape;
  return with_storage(node.input(0).dtype, [&]<class T>(T) {
    return kernel_of(environment,
                     [rows = shape[0], columns = shape[1]](const Buffers& at, cudaStream_t stream) {
                       by_rows<T>(
                           rows, columns, {at.inputs[0], at.outputs[0]},
                           [&]<int width>(const Grid& grid, std::integral_constant<int, width>) {
                             launch(normalize_rows<T, width>, grid, stream, at.input<T>(0), columns,
                                    at.output<T>(0), at.output<T>(1));
                           });
                     },
                     {.overwrites = 0});
  });
}

std::unique_ptr<Kernel> make_normalize_grad(const Node& node,
                                            const KernelEnvironment& environment) {
  const Shape& shape = node.input(0).shape;
  return with_storage(node.input(0).dtype, [&]<class T>(T) {
    return kernel_of(environment,
                     [rows = shape[0], columns = shape[1]](const Buffers& at, cudaStream_t stream) {
                       by_rows<T>(
                           rows, columns, {at.inputs[0], at.inputs[1], at.outputs[0]},
                           [&]<int width>(const Grid& grid, std::integral_constant<int, width>) {
                             launch(normalize_rows_gradient<T, width>, grid, stream, at.input<T>(0),
                                    at.input<T>(1), at.input<T>(2), columns, at.output<T>(0));
                           });
                     },
                     {.overwrites = 0});
  });
}

std::unique_ptr<Kernel> make_spread(const Node& node, const KernelEnvironment& environment) {
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    return kernel_of(environment,
                     [n = elements(node.outputs[0])](const Buffers& at, cudaStream_t stream) {
                       launch(moment_spread<T>, {.blocks = blocks_for(n, 256)}, stream,
                              at.input<T>(0), at.input<T>(1), at.input<T>(2), at.output<T>(0), n);
                     },
                     {.overwrites = 0});
  });
}

}  // namespace

void add_reduction_kernels(KernelList& list) {
  list.add({"sum", own_name, 10, refuse_sum, make_sum<Same>});
  list.add({"squared_norm", own_name, 10, refuse_sum, make_sum<Square>});
  list.add({"normalize", own_name, 10, refuse_rows, make_normalize});
  list.add({"normalize_grad", own_name, 10, refuse_rows, make_normalize_grad});
  list.add({"moment_spread", own_name, 10, refuse_rows, make_spread});
  add_column_kernels(list);
}

}  // namespace ftrain::cuda
