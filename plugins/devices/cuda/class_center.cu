// Of the class-center step what comes before the second walk: cosines with the own class, the first
// walk and the loss.
#include "plugins/devices/cuda/class_center.h"

#include "plugins/devices/cuda/kernels/class_center.cuh"
#include "plugins/devices/cuda/launch.h"
#include "plugins/devices/cuda/tile_product.h"

namespace ftrain::cuda {
namespace {

constexpr unsigned threads = 256;

Grid grid_of(std::int64_t count, unsigned each = 1) {
  return {.blocks = {ftrain::cuda::blocks_for(count * each, threads)}, .threads = threads};
}

}  // namespace

Walk Walk::of(const Node& node, std::size_t weight, std::size_t rows, const Context& context) {
  Walk walk;
  walk.batch = node.input(0).shape[0];
  walk.width = node.input(0).shape[1];
  walk.classes = node.input(weight).shape[0];
  walk.sampled = node.inputs[rows].valid();
  walk.walked = walk.sampled ? node.input(rows).shape[0] : walk.classes;
  walk.first_class = node.attributes.integer("first_class");
  walk.margin = &node.attributes.payload<Margin>("margin");
  walk.gradient_scale = static_cast<float>(node.attributes.number("gradient_scale"));
  // Rows, their gradient and their cosines; whole blocks of the product.
  constexpr std::int64_t block = 64;
  const std::int64_t row_bytes = 4 * (2 * walk.width + walk.batch);
  const std::int64_t blocks_walked = (walk.walked + block - 1) / block;
  walk.tile =
      std::max(std::min(context.tile_bytes / row_bytes / block, blocks_walked), std::int64_t{1}) *
      block;
  // Threads for half of what the device holds at once; a slice of a thread has 4 rows at least.
  const std::int64_t wanted = std::int64_t{context.multiprocessors} * 1024;
  const std::int64_t lanes = std::max<std::int64_t>(walk.batch, 32);
  walk.slices =
      std::clamp<std::int64_t>(wanted / lanes, 1, std::max<std::int64_t>(1, walk.tile / 4));
  // Two blocks a multiprocessor, each with 256 rows at least.
  const auto blocks = [](std::int64_t count) { return (count + block - 1) / block; };
  const std::int64_t outputs = std::max<std::int64_t>(1, blocks(walk.batch) * blocks(walk.width));
  walk.splits = std::clamp<std::int64_t>(2 * context.multiprocessors / outputs, 1,
                                         std::max<std::int64_t>(1, walk.tile / 256));
  return walk;
}

void describe(std::int64_t batch, const float* target, const float* norms, const Samples& samples,
              cudaStream_t stream) {
  if (batch == 0) return;
  launch(describe_samples, Grid{.threads = threads, .shared = block_reduce_bytes<double>(threads)},
         stream, batch, target, norms, samples.info);
}

void find_own(const Walk& walk, const std::int64_t* labels, const std::int32_t* rows,
              const Samples& samples, cudaStream_t stream) {
  if (walk.batch == 0) return;
  launch(own_positions, grid_of(walk.batch), stream, walk.batch, walk.first_class, walk.classes,
         walk.walked, labels, rows, samples.own);
}

const float* rows_of_tile(const Walk& walk, const float* weight, const std::int32_t* rows,
                          std::int64_t first, std::int64_t count, float* inverse, float* copy,
                          cudaStream_t stream) {
  const std::int32_t* const sampled = rows != nullptr ? rows + first : nullptr;
  if (rows == nullptr) {
    weight += first * walk.width;
    copy = nullptr;
  }
  if (inverse != nullptr || copy != nullptr) {
    launch(prepare_rows, grid_of(count, warp_size), stream, count, walk.width,
           walk.margin->normalized, weight, sampled, inverse, copy);
  }
  return copy != nullptr ? copy : weight;
}

namespace {

std::string refuse_margin(const Node& node) {
  if (node.attributes.payload<Margin>("margin").cuda != nullptr) return {};
  return "the head " + node.attributes.payload<Margin>("margin").text() +
         " has no device code: its plugin was built without nvcc";
}

std::string refuse_types(const Node& node, const KernelEnvironment&) {
  return node.input(0).dtype == DType::f32 ? "" : "only f32";
}

std::string refuse_loss(const Node& node, const KernelEnvironment& environment) {
  const std::string reason = refuse_types(node, environment);
  return reason.empty() ? refuse_margin(node) : reason;
}

std::unique_ptr<Kernel> make_target(const Node& node, const KernelEnvironment& environment) {
  return kernel_of(environment, [batch = node.input(0).shape[0], width = node.input(0).shape[1],
                                 classes = node.input(2).shape[0],
                                 first = node.attributes.integer("first_class"),
                                 normalized = node.attributes.payload<Margin>("margin").normalized](
                                    const Buffers& at, cudaStream_t stream) {
    if (batch == 0) return;
    launch(target_cosines, grid_of(batch, warp_size), stream, batch, width, first, classes,
           normalized, at.input<float>(0), at.input<std::int64_t>(1), at.input<float>(2),
           at.output<float>(0));
  });
}

struct ForwardScratch {
  Samples samples;
  float *running, *copy, *cosines;

  ForwardScratch(const Walk& walk, bool keep, Scratch& scratch)
      : samples(Samples::take(scratch, walk.batch)),
        running(scratch.take<float>(2 * walk.slices * walk.batch)),
        copy(scratch.take<float>(walk.sampled ? walk.tile * walk.width : 0)),
        cosines(scratch.take<float>(keep ? 0 : walk.tile * walk.batch)) {}
};

std::unique_ptr<Kernel> make_forward(const Node& node, const KernelEnvironment& environment) {
  namespace in = forward_input;
  const Walk walk = Walk::of(node, in::weight, in::rows, context_of(environment));
  const bool keep = node.attributes.flag("keep_cosines");
  Scratch counted;
  const ForwardScratch unused(walk, keep, counted);
  const auto body = [walk, keep](const Buffers& at, cudaStream_t stream) {
    if (walk.batch == 0) return;
    Scratch memory(at.scratch);
    const ForwardScratch scratch(walk, keep, memory);
    const auto* const rows = at.input<std::int32_t>(in::rows);
    const auto* const weight = at.input<float>(in::weight);
    auto* const inverse = at.output<float>(1);
    describe(walk.batch, at.input<float>(in::target), at.input<float>(in::norms), scratch.samples,
             stream);
    find_own(walk, at.input<std::int64_t>(in::labels), rows, scratch.samples, stream);
    const std::int64_t pairs = walk.slices * walk.batch;
    launch(start_statistics, grid_of(pairs), stream, pairs, scratch.running);
    walk.each_tile([&](std::int64_t first, std::int64_t count) {
      const float* const centers =
          rows_of_tile(walk, weight, rows, first, count, inverse + first, scratch.copy, stream);
      float* const cosines = keep ? at.output<float>(2) + first * walk.batch : scratch.cosines;
      tile_product({.b_transposed = true,
                    .m = count,
                    .n = walk.batch,
                    .k = walk.width,
                    .a = centers,
                    .b = at.input<float>(in::features),
                    .c = cosines},
                   stream);
      const DeviceMarginTile tile{.rows = count,
                                  .batch = walk.batch,
                                  .first = first,
                                  .cosines = cosines,
                                  .inverse = inverse + first,
                                  .sampled = rows != nullptr ? rows + first : nullptr,
                                  .own = scratch.samples.own,
                                  .samples = scratch.samples.info};
      walk.functions().forward(walk.margin->functor, tile, keep, walk.slices, scratch.running,
                               stream);
    });
    launch(combine_statistics,
           Grid{.blocks = {static_cast<unsigned>(walk.batch)},
                .threads = 128,
                .shared = block_reduce_bytes<float>(128)},
           stream, walk.slices, walk.batch, scratch.running, at.output<float>(0));
  };
  return kernel_of(environment, body, {.scratch = counted.bytes()});
}

std::unique_ptr<Kernel> make_loss(const Node& node, const KernelEnvironment& environment) {
  const std::int64_t ranks = node.input(0).shape[0], batch = node.input(2).shape[0];
  const Margin* const margin = &node.attributes.payload<Margin>("margin");
  Scratch counted;
  counted.take<MarginRow<float>>(batch);
  counted.take<Dual<float>>(batch);
  const auto body = [=](const Buffers& at, cudaStream_t stream) {
    Scratch scratch(at.scratch);
    const Samples samples{scratch.take<MarginRow<float>>(batch)};
    auto* const target = scratch.take<Dual<float>>(batch);
    describe(batch, at.input<float>(2), at.input<float>(1), samples, stream);
    static_cast<const DeviceMargin*>(margin->cuda)
        ->target(margin->functor, samples.info, batch, target, stream);
    launch(combine_ranks, Grid{.threads = threads, .shared = block_reduce_bytes<double>(threads)},
           stream, ranks, batch, at.input<float>(0), target, at.output<float>(0),
           at.output<float>(1));
  };
  return kernel_of(environment, body, {.scratch = counted.bytes()});
}

}  // namespace

std::string refuse_walk(const Node& node, const KernelEnvironment& environment) {
  std::string reason = refuse_loss(node, environment);
  // A product's blocks are counted by rows and by samples, the latter in a grid's second number.
  if (reason.empty() && node.input(0).shape[0] > 64 * 65535) reason = "too many samples";
  return reason;
}

void add_class_center_kernels(KernelList& list) {
  list.add({"target_cosine", own_name, 10, refuse_types, make_target});
  list.add({"class_center_forward", own_name, 10, refuse_walk, make_forward});
  list.add({"margin_loss", own_name, 10, refuse_loss, make_loss});
  add_class_center_backward(list);
  add_class_sampling(list);
}

}  // namespace ftrain::cuda
