// A folded convolution as any convolution kernel and a pass over its result, slice of the batch by
// slice, so that the pass finds the result in the cache.
#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/folded/folded.h"
#include "plugins/devices/cpu/folded/pass.h"
#include "plugins/devices/cpu/simd/tiles.h"
#include "plugins/devices/cpu/winograd/winograd.h"

namespace ftrain::cpu {
namespace {

// The result of a slice: a share of a third-level cache that a neighbour's work leaves too.
constexpr std::size_t slice_bytes = std::size_t{8} << 20;

std::int64_t slice_of(const TensorType& y) {
  const std::int64_t batch = y.shape[0];
  const auto image_bytes = static_cast<std::int64_t>(y.bytes()) / batch;
  const auto most = static_cast<std::int64_t>(slice_bytes);
  std::int64_t slice = 1;
  for (std::int64_t n = 1; n <= batch; ++n) {
    if (batch % n == 0 && n * image_bytes <= most) slice = n;
  }
  return slice;
}

// conv2d over a slice of a conv2d_folded's batch.
struct Slice {
  Graph graph;
  const Node* node = nullptr;

  explicit Slice(const Node& whole) {
    const std::int64_t images = slice_of(whole.outputs[0]);
    TensorType x = whole.input(0);
    x.shape[0] = images;
    const Value y =
        ops::conv2d(graph.input("x", x), graph.input("weight", whole.input(1)),
                    {whole.attributes.integer("stride"), whole.attributes.integer("padding"),
                     whole.attributes.integer("groups")});
    graph.node(y.node_index()).outputs[0].layout = whole.outputs[0].layout;
    node = &graph.node(y.node_index());
  }
};

class Sliced final : public Kernel {
 public:
  Sliced(const KernelDef& convolution, const Node& node, const KernelEnvironment& environment)
      : pass_(last_steps_for(environment.isa)),
        tiles_(tiles_of(node.outputs[0])),
        threads_(environment.threads),
        images_(slice_of(node.outputs[0])),
        by_position_(node.input(2).shape.rank() == 4) {
    const Slice slice(node);
    const std::int64_t batch = node.outputs[0].shape[0];
    x_stride_ = slice.node->input(0).bytes();
    for (std::int64_t n = 0; n < batch; n += images_) {
      slices_.push_back(convolution.make(*slice.node, environment));
    }
  }

  std::size_t scratch_bytes() const override { return slices_[0]->scratch_bytes(); }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    bias_ = static_cast<const float*>(inputs[2]);
    slope_ = static_cast<const float*>(inputs[3]);
    other_ = static_cast<const float*>(inputs[4]);
    y_ = static_cast<float*>(outputs[0]);
    for (std::size_t s = 0; s < slices_.size(); ++s) {
      void* const operands[] = {static_cast<char*>(inputs[0]) + s * x_stride_, inputs[1]};
      void* const result[] = {y_ + tiles_.offset(static_cast<std::int64_t>(s) * images_, 0)};
      slices_[s]->bind(operands, result, scratch);
    }
  }

  void launch() override {
    for (std::size_t s = 0; s < slices_.size(); ++s) {
      slices_[s]->launch();
      const std::int64_t first = static_cast<std::int64_t>(s) * images_ * tiles_.blocks;
      parallel_for(images_ * tiles_.blocks, threads_,
                   [&](std::int64_t i) { finish_tile(first + i); });
    }
  }

 private:
  void finish_tile(std::int64_t tile) const {
    const std::int64_t block = tile % tiles_.blocks;
    const std::int64_t at = tiles_.offset(tile / tiles_.blocks, block);
    LastSteps t;
    t.y = y_ + at;
    t.bias = bias_ + (by_position_ ? tiles_.offset(0, block) : block * tiles_.block);
    if (slope_ != nullptr) t.slope = slope_ + block * tiles_.block;
    if (other_ != nullptr) t.other = other_ + at;
    t.rows = tiles_.rows;
    t.block = tiles_.block;
    t.by_position = by_position_;
    pass_(t);
  }

  LastStepsFunction pass_;
  Tiles tiles_;
  int threads_;
  std::int64_t images_;
  bool by_position_;
  std::size_t x_stride_ = 0;
  std::vector<std::unique_ptr<Kernel>> slices_;
  const float *bias_ = nullptr, *slope_ = nullptr, *other_ = nullptr;
  float* y_ = nullptr;
};

const std::vector<const KernelDef*>& convolutions() {
  static const KernelList list = [] {
    KernelList made;
    add_simd_kernels(made);
    add_onednn_kernels(made);
    add_winograd_kernels(made);
    return made;
  }();
  static const std::vector<const KernelDef*> found = list.of("conv2d");
  return found;
}

const std::vector<std::string>& names() {
  static const std::vector<std::string> made = [] {
    std::vector<std::string> list;
    for (const KernelDef* def : convolutions()) list.push_back(std::string(def->name) + ", pass");
    return list;
  }();
  return made;
}

template <std::size_t which>
std::string refuse(const Node& node, const KernelEnvironment& environment) {
  const TensorType& y = node.outputs[0];
  if (y.dtype != DType::f32 || node.input(0).dtype != DType::f32) return "only f32";
  if (channel_block(y.layout) == 1) return "only channel-blocked results";
  for (const std::size_t i : {2u, 4u}) {
    if (!node.inputs[i].valid()) continue;
    const TensorType& type = node.input(i);
    if (type.dtype != DType::f32 || (type.shape.rank() == 4 && type.layout != y.layout)) {
      return "operands in different layouts";
    }
  }
  const KernelDef& def = *convolutions()[which];
  const Slice slice(node);
  return def.refuse == nullptr ? "" : def.refuse(*slice.node, environment);
}

template <std::size_t which>
std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<Sliced>(*convolutions()[which], node, environment);
}

constexpr std::size_t most_kernels = 16;

template <std::size_t... which>
void add(KernelList& list, std::index_sequence<which...>) {
  const auto add_one = [&](std::size_t i, auto refuse, auto make) {
    if (i >= convolutions().size()) return;
    list.add({"conv2d_folded", names()[i], convolutions()[i]->priority, refuse, make,
              convolutions()[i]->coarse});
  };
  (add_one(which, refuse<which>, make<which>), ...);
}

}  // namespace

void add_sliced_folded_kernels(KernelList& list) {
  if (convolutions().size() > most_kernels) {
    throw std::logic_error("more convolution kernels than folded ones are made of");
  }
  add(list, std::make_index_sequence<most_kernels>());
}

}  // namespace ftrain::cpu
