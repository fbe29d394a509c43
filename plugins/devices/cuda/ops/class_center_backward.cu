// The second walk: cosines again, unless they were kept, their gradients, and from these those of
// features and of class centers, which the optimizer takes tile by tile or which are written out.
#include "ftrain/model/optimizer.h"
#include "plugins/devices/cuda/ops/class_center_rows.h"
#include "plugins/devices/cuda/ops/kernels/class_center_backward.cuh"
#include "plugins/devices/cuda/runtime/launch.h"

namespace ftrain::cuda {
namespace {

namespace in = backward_input;
constexpr unsigned threads = 256;
// Rows that were not sampled are listed so many at a time.
constexpr std::int64_t listed = 1 << 20;

// The second walk.
struct Backward {
  Walk walk;
  Terms terms;
  bool kept;                       // cosines of the first walk are there
  const Update* update = nullptr;  // nullptr: the gradient is written out
  DeviceUpdateScalars scalars;     // what is known before the first launch
  std::size_t slots = 0;
  std::uint64_t seed = 0;  // of the rounding to bf16
  bool rest = false;       // rows that were not sampled are updated too
  TileProducts products;
  TileRows rows;

  struct Space {
    Samples samples;
    float *along, *cosines, *gradient, *splits;
    std::int32_t* rest;
    TileRows::Space rows;
    std::byte* product;
  };

  Backward(const Node& node, bool updates, const Context& context)
      : walk(Walk::of(node, in::weight, in::rows, context)),
        terms(Terms::of(node, in::terms)),
        kept(node.inputs[in::cosines].valid()),
        slots(updates ? node.inputs.size() - in::first_slot : 0),
        products(walk, true, kept, context),
        rows(walk, static_cast<std::int64_t>(1 + slots), context) {
    if (!updates) return;
    update = &node.attributes.payload<Update>("update");
    scalars.rate_factor = node.attributes.number("rate_factor");
    scalars.decay = node.attributes.number("decay");
    if (walk.bf16) seed = static_cast<std::uint64_t>(node.attributes.integer("seed"));
    rest = walk.sampled && node.attributes.flag("all_rows");
  }

  Space take(Scratch& scratch) const {
    return {Samples::take(scratch, walk.batch),
            scratch.take<float>(walk.tile),
            scratch.take<float>(walk.tile * walk.batch),
            scratch.take<float>(walk.tile * walk.width),
            scratch.take<float>(products.splits() * walk.batch * walk.width),
            scratch.take<std::int32_t>(rest ? std::min(walk.classes, listed) : 0),
            rows.take(scratch),
            scratch.take<std::byte>(static_cast<std::int64_t>(products.scratch_bytes()))};
  }

  void operator()(const Buffers& at, cudaStream_t stream) const {
    Scratch memory(at.scratch);
    const Space space = take(memory);
    const auto* const sampled = at.input<std::int32_t>(in::rows);
    std::vector<void*> stored{at.inputs[in::weight]};
    for (std::size_t s = 0; s < slots; ++s) stored.push_back(at.inputs[in::first_slot + s]);
    const TileRows::Launch tiles{rows, space.rows, stored, sampled, stream};
    tiles.begin();
    if (walk.batch > 0) {
      describe(walk.batch, at.input<float>(in::target), at.input<float>(in::norms), terms, at,
               space.samples, stream);
      find_own(walk, at.input<std::int64_t>(in::labels), sampled, space.samples, stream);
    }
    walk.each_tile(
        [&](std::int64_t first, std::int64_t count) { tile(at, space, tiles, first, count); });
    const std::int64_t features = walk.batch * walk.width;
    if (features > 0) {
      launch(add_splits, Grid{.blocks = {ftrain::cuda::blocks_for(features, threads)}}, stream,
             features, walk.walked > 0 ? products.splits() : 0, space.splits,
             at.output<float>(update != nullptr ? 0 : 1));
    }
    if (rest) update_rest(at, stored, space.rest, stream);
  }

 private:
  void tile(const Buffers& at, const Space& space, const TileRows::Launch& tiles,
            std::int64_t first, std::int64_t count) const {
    const cudaStream_t stream = tiles.stream;
    const auto* const features = at.input<float>(in::features);
    const std::int32_t* const sampled = tiles.rows != nullptr ? tiles.rows + first : nullptr;
    const float* const inverse = at.input<float>(in::inverse_norms) + first;
    const float* const centers = tiles.centers(first, count, nullptr);
    if (!kept) {
      products.cosines(count, centers, features, space.cosines, space.product, stream);
    }
    const DeviceMarginTile cosines{
        .rows = count,
        .batch = walk.batch,
        .first = first,
        .cosines = space.cosines,
        .kept = kept ? at.input<float>(in::cosines) + first * walk.batch : nullptr,
        .inverse = inverse,
        .sampled = sampled,
        .own = space.samples.own,
        .samples = space.samples.info};
    walk.functions().backward(walk.margin->functor, cosines, at.input<float>(in::log_sum),
                              walk.gradient_scale, space.along, stream);
    products.features(count, space.cosines, centers, space.splits, first > 0, space.product,
                      stream);
    products.rows(count, space.cosines, features, space.gradient, space.product, stream);
    const float* const earlier = at.input<float>(in::earlier);
    const std::int64_t begin = first * walk.width;
    launch(finish_rows, Grid{.blocks = {static_cast<unsigned>(count)}, .threads = threads}, stream,
           walk.width, walk.margin->normalized, centers, sampled, inverse, space.along,
           space.gradient, earlier != nullptr ? earlier + begin : nullptr,
           update != nullptr ? space.gradient : at.output<float>(0) + begin);
    if (update != nullptr) {
      update_rows(at, tiles.tensors(first),
                  {.count = count,
                   .width = walk.width,
                   .first = first,
                   .rows = sampled,
                   .gradient = space.gradient,
                   .packed = rows.packed()},
                  stream);
    }
    tiles.done(first, count, update != nullptr);
  }

  // `tensors`: class centers, then slots.
  void update_rows(const Buffers& at, const std::vector<void*>& tensors, DeviceRows rows_of,
                   cudaStream_t stream) const {
    DeviceUpdateScalars now = scalars;
    now.rate = at.input<float>(in::rate);
    now.ok = at.input<float>(in::ok);
    now.step = at.input<std::int64_t>(in::step);
    rows_of.row_steps = at.state<float>(in::row_steps);
    if (walk.bf16) {
      rows_of.dtype = DType::bf16;
      rows_of.seed = seed;
      rows_of.first_class = walk.first_class;
    }
    static_cast<const DeviceUpdate*>(update->cuda)
        ->rows(update->functor, tensors[0], tensors.data() + 1, static_cast<int>(slots), rows_of,
               now, stream);
  }

  // Where they are stored: of what lies in the host's memory each byte is wanted once.
  void update_rest(const Buffers& at, const std::vector<void*>& stored, std::int32_t* list,
                   cudaStream_t stream) const {
    for (std::int64_t first = 0; first < walk.classes; first += listed) {
      const std::int64_t count = std::min(listed, walk.classes - first);
      launch(rows_not_sampled, Grid{.blocks = {ftrain::cuda::blocks_for(count, threads)}}, stream,
             first, count, walk.walked, at.input<std::int32_t>(in::rows), list);
      update_rows(at, stored, {.count = count, .width = walk.width, .rows = list}, stream);
    }
  }
};

std::unique_ptr<Kernel> make_backward(const Node& node, const KernelEnvironment& environment,
                                      bool updates) {
  const Backward body(node, updates, context_of(environment));
  Scratch counted;
  body.take(counted);
  const bool adds = node.inputs[in::earlier].valid() && !updates;
  return kernel_of(
      environment, body,
      {.scratch = counted.bytes(), .overwrites = adds ? static_cast<int>(in::earlier) : -1});
}

std::string refuse_update(const Node& node, const KernelEnvironment& environment) {
  const std::string reason = refuse_walk(node, environment);
  const auto& update = node.attributes.payload<Update>("update");
  if (!reason.empty() || update.cuda != nullptr) return reason;
  return "the optimizer " + update.text() +
         " has no device code: its plugin was built without nvcc";
}

}  // namespace

void add_class_center_backward(KernelList& list) {
  using Environment = const KernelEnvironment&;
  list.add({"class_center_backward", own_name, 10, refuse_walk,
            [](const Node& node, Environment e) { return make_backward(node, e, false); }});
  list.add({"class_center_update", own_name, 10, refuse_update,
            [](const Node& node, Environment e) { return make_backward(node, e, true); }});
}

}  // namespace ftrain::cuda
