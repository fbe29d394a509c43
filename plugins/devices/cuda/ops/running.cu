// Running statistics of one batch norm, of many in one launch, and other states.
#include "plugins/devices/cuda/ops/running.h"

#include "plugins/devices/cuda/ops/kernels/running.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"
#include "plugins/devices/cuda/rewrite/merge_running.h"

namespace ftrain::cuda {
namespace {

std::string refuse_running(const Node& node, const KernelEnvironment& environment) {
  for (const Value& input : node.inputs) {
    if (input.dtype() != DType::f32) return "is for f32 only, not " + input.type().text();
  }
  return refuse_storage(node, environment);
}

// ---- assign. Inputs: state, value, ok.
std::unique_ptr<Kernel> make_assign(const Node& node, const KernelEnvironment& environment) {
  return kernel_of(environment, [n = elements(node.input(0)), &context = context_of(environment)](
                                    const Buffers& at, cudaStream_t stream) {
    if (n == 0) return;
    launch(assign, {.blocks = resident_blocks(n, context)}, stream, n, at.input<float>(1),
           at.input<float>(2), at.state<float>(0));
  });
}

// ---- running statistics
// Of a norm whose batch moments have that shape.
RunningStatistics like(const Shape& moments, std::int64_t count, double momentum) {
  const auto samples = static_cast<double>(count);
  return {.running = {},
          .batch = {},
          .groups = moments[0],
          .channels = moments[1],
          .momentum = momentum,
          // A single sample has no unbiased variance; its biased one is taken.
          .unbias = count > 1 ? samples / (samples - 1) : 1};
}

// A norm, and where its inputs begin.
struct Norm {
  RunningStatistics statistics;
  std::size_t input;
};

std::unique_ptr<Kernel> make(std::vector<Norm> norms, std::size_t ok,
                             const KernelEnvironment& environment) {
  return kernel_of(environment,
                   [norms = std::move(norms), ok](const Buffers& at, cudaStream_t stream) {
                     constexpr unsigned threads = 128;
                     RunningTable table;
                     for (std::size_t n = 0; n < norms.size(); ++n) {
                       RunningStatistics& of = table.of[table.norms++] = norms[n].statistics;
                       table.channels = std::max(table.channels, of.channels);
                       for (std::size_t k = 0; k < 2; ++k) {
                         of.running[k] = at.state<float>(norms[n].input + k);
                         of.batch[k] = at.input<float>(norms[n].input + 2 + k);
                       }
                       if (table.norms < RunningTable::most && n + 1 < norms.size()) continue;
                       const Grid grid{.blocks = dim3(blocks_for(table.channels, threads), 2,
                                                      static_cast<unsigned>(table.norms)),
                                       .threads = threads};
                       launch(update_running, grid, stream, table, at.input<float>(ok));
                       table.norms = 0;
                       table.channels = 0;
                     }
                   });
}

std::unique_ptr<Kernel> make_one(const Node& node, const KernelEnvironment& environment) {
  const Attributes& a = node.attributes;
  return make({{like(node.input(2).shape, a.integer("count"), a.number("momentum")), 0}}, 4,
              environment);
}

std::unique_ptr<Kernel> make_many(const Node& node, const KernelEnvironment& environment) {
  const Attributes& a = node.attributes;
  std::vector<Norm> norms;
  for (std::size_t n = 0; n < ManyRunning(node).norms; ++n) {
    const std::size_t first = ManyRunning::at(n);
    norms.push_back(
        {like(node.input(first + 2).shape, a.integers("counts")[n], a.number("momentum")), first});
  }
  return make(std::move(norms), 0, environment);
}

}  // namespace

void add_running_kernels(KernelList& list) {
  list.add({"assign", own_name, 10, refuse_running, make_assign});
  list.add({"update_running", own_name, 10, refuse_running, make_one});
  list.add({"update_running_many", own_name, 10, refuse_running, make_many});
}

}  // namespace ftrain::cuda
