// Of the class-center step what comes before the second walk: cosines with the own class, the first
// walk and the loss.
#include "plugins/devices/cuda/ops/class_center.h"

#include "plugins/devices/cuda/ops/class_center_rows.h"
#include "plugins/devices/cuda/ops/kernels/class_center.cuh"
#include "plugins/devices/cuda/runtime/launch.h"

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
  walk.bf16 = node.input(weight).dtype == DType::bf16;
  const Value centers = node.inputs[weight];
  const Graph::State* const state = centers.graph().state_of(centers);
  walk.host = state != nullptr && state->spec.memory == StateSpec::Memory::host;
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

void describe(std::int64_t batch, const float* target, const float* norms, const Terms& terms,
              const Buffers& at, const Samples& samples, cudaStream_t stream) {
  if (batch == 0) return;
  launch(describe_samples, grid_of(batch), stream, batch, target, norms, terms.count,
         at.input<float>(terms.operand), samples.info);
}

void find_own(const Walk& walk, const std::int64_t* labels, const std::int32_t* rows,
              const Samples& samples, cudaStream_t stream) {
  if (walk.batch == 0) return;
  launch(own_positions, grid_of(walk.batch), stream, walk.batch, walk.first_class, walk.classes,
         walk.walked, labels, rows, samples.own);
}

TileProducts::TileProducts(const Walk& walk, bool second, bool kept, const Context& context)
    : tile_(std::min(walk.tile, walk.walked)) {
  const auto plan = [&](std::int64_t count, std::int64_t splits) {
    Plans made;
    const std::int64_t batch = walk.batch, width = walk.width;
    const auto add = [&](ProductShape shape) {
      shape.tf32 = context.tf32;
      auto product = plan_product(shape, context);
      scratch_bytes_ = std::max(scratch_bytes_, product->scratch_bytes());
      return product;
    };
    if (!kept) made.cosines = add({.b_transposed = true, .m = count, .n = batch, .k = width});
    if (!second) return made;
    made.features =
        add({.a_transposed = true, .m = batch, .n = width, .k = count, .most_splits = splits});
    made.rows = add({.m = count, .n = width, .k = batch});
    return made;
  };
  if (tile_ == 0) return;
  full_ = plan(tile_, walk.splits);
  if (second) splits_ = full_.features->splits();
  if (walk.walked % tile_ != 0) last_ = plan(walk.walked % tile_, splits_);
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
                                 classes = node.input(2).shape[0], stored = node.input(2).dtype,
                                 first = node.attributes.integer("first_class"),
                                 normalized = node.attributes.payload<Margin>("margin").normalized](
                                    const Buffers& at, cudaStream_t stream) {
    if (batch == 0) return;
    with_storage(stored, [&](auto type) {
      using T = decltype(type);
      launch(target_cosines<T>, grid_of(batch, warp_size), stream, batch, width, first, classes,
             normalized, at.input<float>(0), at.input<std::int64_t>(1), at.input<T>(2),
             at.output<float>(0));
    });
  });
}

// The first walk.
struct Forward {
  Walk walk;
  Terms terms;
  bool keep;
  TileProducts products;
  TileRows rows;

  struct Space {
    Samples samples;
    float *running, *cosines;
    TileRows::Space rows;
    std::byte* product;
  };

  Forward(const Node& node, const Context& context)
      : walk(Walk::of(node, forward_input::weight, forward_input::rows, context)),
        terms(Terms::of(node, forward_input::terms)),
        keep(node.attributes.flag("keep_cosines")),
        products(walk, false, false, context),
        rows(walk, 1, context) {}

  Space take(Scratch& scratch) const {
    return {Samples::take(scratch, walk.batch), scratch.take<float>(2 * walk.slices * walk.batch),
            scratch.take<float>(keep ? 0 : walk.tile * walk.batch), rows.take(scratch),
            scratch.take<std::byte>(static_cast<std::int64_t>(products.scratch_bytes()))};
  }

  void operator()(const Buffers& at, cudaStream_t stream) const {
    namespace in = forward_input;
    if (walk.batch == 0) return;
    Scratch memory(at.scratch);
    const Space space = take(memory);
    const auto* const sampled = at.input<std::int32_t>(in::rows);
    const auto* const features = at.input<float>(in::features);
    const TileRows::Launch tiles{rows, space.rows, {&at.inputs[in::weight], 1}, sampled, stream};
    tiles.begin();
    describe(walk.batch, at.input<float>(in::target), at.input<float>(in::norms), terms, at,
             space.samples, stream);
    find_own(walk, at.input<std::int64_t>(in::labels), sampled, space.samples, stream);
    const std::int64_t pairs = walk.slices * walk.batch;
    launch(start_statistics, grid_of(pairs), stream, pairs, space.running);
    walk.each_tile([&](std::int64_t first, std::int64_t count) {
      float* const inverse = at.output<float>(1) + first;
      float* const cosines = keep ? at.output<float>(2) + first * walk.batch : space.cosines;
      products.cosines(count, tiles.centers(first, count, inverse), features, cosines,
                       space.product, stream);
      tiles.done(first, count, false);
      const DeviceMarginTile tile{.rows = count,
                                  .batch = walk.batch,
                                  .first = first,
                                  .cosines = cosines,
                                  .inverse = inverse,
                                  .sampled = sampled != nullptr ? sampled + first : nullptr,
                                  .own = space.samples.own,
                                  .samples = space.samples.info};
      walk.functions().forward(walk.margin->functor, tile, keep, walk.slices, space.running,
                               stream);
    });
    launch(combine_statistics,
           Grid{.blocks = {static_cast<unsigned>(walk.batch)},
                .threads = 128,
                .shared = block_reduce_bytes<float>(128)},
           stream, walk.slices, walk.batch, space.running, at.output<float>(0));
  }
};

std::unique_ptr<Kernel> make_forward(const Node& node, const KernelEnvironment& environment) {
  const Forward body(node, context_of(environment));
  Scratch counted;
  body.take(counted);
  return kernel_of(environment, body, {.scratch = counted.bytes()});
}

std::unique_ptr<Kernel> make_loss(const Node& node, const KernelEnvironment& environment) {
  namespace in = center_loss;
  const std::int64_t ranks = node.input(in::stats).shape[0];
  const std::int64_t batch = node.input(in::target).shape[0];
  const Terms terms = Terms::of(node, in::terms);
  const Margin* const margin = &node.attributes.payload<Margin>("margin");
  Scratch counted;
  counted.take<MarginRow<float>>(batch);
  counted.take<Dual<float>>(batch);
  const auto body = [=](const Buffers& at, cudaStream_t stream) {
    Scratch scratch(at.scratch);
    const Samples samples{scratch.take<MarginRow<float>>(batch)};
    auto* const target = scratch.take<Dual<float>>(batch);
    describe(batch, at.input<float>(in::target), at.input<float>(in::norms), terms, at, samples,
             stream);
    static_cast<const DeviceMargin*>(margin->cuda)
        ->target(margin->functor, samples.info, batch, target, stream);
    launch(combine_ranks, Grid{.threads = threads, .shared = block_reduce_bytes<double>(threads)},
           stream, ranks, batch, at.input<float>(in::stats), target, at.output<float>(0),
           at.output<float>(1));
  };
  return kernel_of(environment, body, {.scratch = counted.bytes()});
}

std::string refuse_term_gradient(const Node& node, const KernelEnvironment& environment) {
  const std::string reason = refuse_loss(node, environment);
  const auto& margin = node.attributes.payload<Margin>("margin");
  if (!reason.empty() ||
      static_cast<const DeviceMargin*>(margin.cuda)->target_term_gradient != nullptr) {
    return reason;
  }
  return "the head " + margin.text() + " takes no gradient through its terms";
}

std::unique_ptr<Kernel> make_term_gradient(const Node& node, const KernelEnvironment& environment) {
  namespace in = term_gradient;
  const std::int64_t batch = node.input(in::target).shape[0];
  const Terms terms = Terms::of(node, in::terms);
  const Margin* const margin = &node.attributes.payload<Margin>("margin");
  const auto scale = static_cast<float>(node.attributes.number("gradient_scale"));
  Scratch counted;
  counted.take<MarginRow<float>>(batch);
  const auto body = [=](const Buffers& at, cudaStream_t stream) {
    Scratch scratch(at.scratch);
    const Samples samples{scratch.take<MarginRow<float>>(batch)};
    describe(batch, at.input<float>(in::target), at.input<float>(in::norms), terms, at, samples,
             stream);
    static_cast<const DeviceMargin*>(margin->cuda)
        ->target_term_gradient(margin->functor, samples.info, batch, at.input<float>(in::log_sum),
                               scale, terms.count, at.output<float>(0), stream);
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
  list.add({"margin_term_gradient", own_name, 10, refuse_term_gradient, make_term_gradient});
  add_class_center_backward(list);
  add_class_sampling(list);
}

}  // namespace ftrain::cuda
