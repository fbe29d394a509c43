// The second walk: cosines again, unless they were kept, their gradients, and from these those of
// features and of class centers, which the optimizer takes tile by tile or which are written out.
#include "core/model/optimizer.h"
#include "plugins/devices/cuda/class_center.h"
#include "plugins/devices/cuda/kernels/class_center_backward.cuh"
#include "plugins/devices/cuda/launch.h"
#include "plugins/devices/cuda/tile_product.h"

namespace ftrain::cuda {
namespace {

namespace in = backward_input;
constexpr unsigned threads = 256;
// Rows that were not sampled are listed so many at a time.
constexpr std::int64_t listed = 1 << 20;

struct BackwardScratch {
  Samples samples;
  float *along, *copy, *cosines, *gradient, *splits;
  std::int32_t* rest;

  BackwardScratch(const Walk& walk, bool all_rows, Scratch& scratch)
      : samples(Samples::take(scratch, walk.batch)),
        along(scratch.take<float>(walk.tile)),
        copy(scratch.take<float>(walk.sampled ? walk.tile * walk.width : 0)),
        cosines(scratch.take<float>(walk.tile * walk.batch)),
        gradient(scratch.take<float>(walk.tile * walk.width)),
        splits(scratch.take<float>(walk.splits * walk.batch * walk.width)),
        rest(scratch.take<std::int32_t>(all_rows ? std::min(walk.classes, listed) : 0)) {}
};

struct Backward {
  Walk walk;
  const Update* update = nullptr;  // nullptr: the gradient is written out
  DeviceUpdateScalars scalars;     // what is known before the first launch
  int slots = 0;
  bool rest = false;  // rows that were not sampled are updated too

  Backward(const Node& node, bool updates, const Context& context)
      : walk(Walk::of(node, in::weight, in::rows, context)) {
    if (!updates) return;
    update = &node.attributes.payload<Update>("update");
    scalars.rate_factor = node.attributes.number("rate_factor");
    scalars.decay = node.attributes.number("decay");
    slots = static_cast<int>(node.inputs.size() - in::slots);
    rest = walk.sampled && node.attributes.flag("all_rows");
  }

  void operator()(const Buffers& at, cudaStream_t stream) const {
    Scratch memory(at.scratch);
    const BackwardScratch scratch(walk, rest, memory);
    if (walk.batch > 0) {
      describe(walk.batch, at.input<float>(in::target), at.input<float>(in::norms), scratch.samples,
               stream);
      find_own(walk, at.input<std::int64_t>(in::labels), at.input<std::int32_t>(in::rows),
               scratch.samples, stream);
    }
    walk.each_tile(
        [&](std::int64_t first, std::int64_t count) { tile(at, scratch, first, count, stream); });
    const std::int64_t features = walk.batch * walk.width;
    if (features > 0) {
      launch(add_splits, Grid{.blocks = {ftrain::cuda::blocks_for(features, threads)}}, stream,
             features, walk.walked > 0 ? walk.splits : 0, scratch.splits,
             at.output<float>(update != nullptr ? 0 : 1));
    }
    if (rest) update_rest(at, scratch.rest, stream);
  }

 private:
  void tile(const Buffers& at, const BackwardScratch& scratch, std::int64_t first,
            std::int64_t count, cudaStream_t stream) const {
    const auto* const rows = at.input<std::int32_t>(in::rows);
    const auto* const features = at.input<float>(in::features);
    const std::int32_t* const sampled = rows != nullptr ? rows + first : nullptr;
    const float* const inverse = at.input<float>(in::inverse) + first;
    const float* const kept = at.input<float>(in::cosines);
    const float* const centers = rows_of_tile(walk, at.input<float>(in::weight), rows, first, count,
                                              nullptr, scratch.copy, stream);
    if (kept == nullptr) {
      tile_product({.b_transposed = true,
                    .m = count,
                    .n = walk.batch,
                    .k = walk.width,
                    .a = centers,
                    .b = features,
                    .c = scratch.cosines},
                   stream);
    }
    const DeviceMarginTile cosines{.rows = count,
                                   .batch = walk.batch,
                                   .first = first,
                                   .cosines = scratch.cosines,
                                   .kept = kept != nullptr ? kept + first * walk.batch : nullptr,
                                   .inverse = inverse,
                                   .sampled = sampled,
                                   .own = scratch.samples.own,
                                   .samples = scratch.samples.info};
    walk.functions().backward(walk.margin->functor, cosines, at.input<float>(in::log_sum),
                              walk.gradient_scale, scratch.along, stream);
    tile_product({.a_transposed = true,
                  .m = walk.batch,
                  .n = walk.width,
                  .k = count,
                  .a = scratch.cosines,
                  .b = centers,
                  .c = scratch.splits,
                  .add = first > 0,
                  .splits = walk.splits},
                 stream);
    tile_product({.m = count,
                  .n = walk.width,
                  .k = walk.batch,
                  .a = scratch.cosines,
                  .b = features,
                  .c = scratch.gradient},
                 stream);
    const float* const earlier = at.input<float>(in::earlier);
    const std::int64_t begin = first * walk.width;
    launch(finish_rows, Grid{.blocks = {static_cast<unsigned>(count)}, .threads = threads}, stream,
           walk.width, walk.margin->normalized, centers, sampled, inverse, scratch.along,
           scratch.gradient, earlier != nullptr ? earlier + begin : nullptr,
           update != nullptr ? scratch.gradient : at.output<float>(0) + begin);
    if (update != nullptr) {
      update_rows(at,
                  {.count = count,
                   .width = walk.width,
                   .first = first,
                   .rows = sampled,
                   .gradient = scratch.gradient},
                  stream);
    }
  }

  void update_rows(const Buffers& at, const DeviceRows& rows, cudaStream_t stream) const {
    DeviceUpdateScalars now = scalars;
    now.rate = at.input<float>(in::rate);
    now.ok = at.input<float>(in::ok);
    std::vector<float*> of_slots;
    for (int i = 0; i < slots; ++i) {
      of_slots.push_back(at.state<float>(in::slots + static_cast<std::size_t>(i)));
    }
    static_cast<const DeviceUpdate*>(update->cuda)
        ->rows(update->functor, at.state<float>(in::weight), of_slots.data(), slots, rows, now,
               stream);
  }

  void update_rest(const Buffers& at, std::int32_t* list, cudaStream_t stream) const {
    for (std::int64_t first = 0; first < walk.classes; first += listed) {
      const std::int64_t count = std::min(listed, walk.classes - first);
      launch(rows_not_sampled, Grid{.blocks = {ftrain::cuda::blocks_for(count, threads)}}, stream,
             first, count, walk.walked, at.input<std::int32_t>(in::rows), list);
      update_rows(at, {.count = count, .width = walk.width, .rows = list}, stream);
    }
  }
};

std::unique_ptr<Kernel> make_backward(const Node& node, const KernelEnvironment& environment,
                                      bool updates) {
  const Backward body(node, updates, context_of(environment));
  Scratch counted;
  const BackwardScratch unused(body.walk, body.rest, counted);
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
