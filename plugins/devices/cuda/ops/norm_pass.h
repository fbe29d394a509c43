// How passes over activations (kernels/moments.cuh) are started: a kernel of a batch-norm op is a
// few of them in a row.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/ops/kernels/moments.cuh"
#include "plugins/devices/cuda/runtime/launch.h"

namespace ftrain::cuda::norms {

// What the activations of an op are like.
struct Extent {
  std::int64_t samples = 1, positions = 1;
  int channels = 1, groups = 1;
  bool columns = true;  // a sample's channels are neighbours
  DType dtype = DType::f32;

  Extent(const TensorType& type, std::int64_t in_groups)
      : samples(type.shape[0]),
        channels(static_cast<int>(type.shape[1])),
        groups(static_cast<int>(in_groups)),
        dtype(type.dtype) {
    for (std::size_t i = 2; i < type.shape.rank(); ++i) positions *= type.shape[i];
    columns = type.layout == channels_last || positions == 1;
  }
  std::int64_t count() const { return samples / groups * positions; }
  // Elements that a thread takes side by side.
  int width() const {
    const int packet = dtype == DType::f32 ? packet_size<float> : packet_size<__nv_bfloat16>;
    return columns && channels % packet == 0 ? packet : 1;
  }
};

// How a pass is spread over the device. The number of blocks is the number of partial sums, so it
// depends on the shape and the device alone.
struct Spread {
  Grid grid;
  int lanes = 1;

  Spread(const Extent& of, int multiprocessors) {
    constexpr int threads = 256, most_lanes = 64;
    constexpr std::int64_t rows_of_thread = 8;  // fewer would make many partial sums
    const auto groups = static_cast<unsigned>(of.groups);
    std::int64_t across = of.channels, down = 0;
    if (of.columns) {
      const int vectors = of.channels / of.width();
      across = (vectors + most_lanes - 1) / most_lanes;
      lanes = static_cast<int>((vectors + across - 1) / across);
      const int slices = threads / lanes;
      grid.threads = static_cast<unsigned>(slices * lanes);
      down = (of.count() + slices * rows_of_thread - 1) / (slices * rows_of_thread);
    } else {
      while (lanes < threads && lanes < of.positions) lanes *= 2;
      grid.threads = threads;
      const std::int64_t slices = threads / lanes;
      down = (of.samples / of.groups + slices - 1) / slices;
    }
    // Eight blocks of 256 threads are what a multiprocessor holds at most.
    const std::int64_t room = 8 * std::int64_t{multiprocessors} / (across * of.groups);
    down = std::clamp<std::int64_t>(down, 1, std::clamp<std::int64_t>(room, 1, 65535));
    grid.blocks = dim3(static_cast<unsigned>(across), static_cast<unsigned>(down), groups);
    grid.shared = grid.threads * static_cast<std::size_t>(of.width()) * sizeof(double);
  }
};

// The rows' order in a pass. What one pass has read or written last lies in the second cache,
// whence the next one takes it when it comes from the other end. An op's last pass goes down, since
// the convolution behind it begins with the first rows.
enum class Sweep { up, down };

// Starts the passes of one op. Addresses of activations are void*: their type is the extent's.
class Passes {
 public:
  Passes(const Extent& extent, const Context& context)
      : extent_(extent), context_(&context), spread_(extent, context.multiprocessors) {}

  const Extent& extent() const { return extent_; }
  // For the partial sums of a pass with that many of them.
  std::size_t scratch_bytes(int sums) const {
    return static_cast<std::size_t>(sums) * spread_.grid.blocks.y *
           static_cast<std::size_t>(extent_.groups * extent_.channels) * sizeof(double);
  }

  // `from`: the map's inputs, then the term's.
  template <class Map, class Term>
  void run(const PassArguments& arguments,
           const std::array<const void*, Map::inputs + Term::inputs>& from, void* to,
           Sweep sweep = Sweep::up) const {
    if (extent_.dtype == DType::bf16)
      run_in<__nv_bfloat16, Map, Term>(arguments, from, to, sweep);
    else if (extent_.dtype == DType::f16)
      run_in<__half, Map, Term>(arguments, from, to, sweep);
    else
      run_in<float, Map, Term>(arguments, from, to, sweep);
  }

  template <class Finish>
  void finish(const Finish& what, const double* partials) const {
    Grid grid;
    grid.threads = finish_threads;
    grid.blocks = dim3(static_cast<unsigned>((extent_.channels + finish_lanes - 1) / finish_lanes));
    grid.shared = finish_bytes<Finish>();
    launch(finish_pass<Finish>, grid, context_->stream, what, partials, extent_.channels,
           extent_.groups, static_cast<int>(spread_.grid.blocks.y));
  }

 private:
  template <class T, class Map, class Term, std::size_t inputs>
  void run_in(const PassArguments& arguments, const std::array<const void*, inputs>& from, void* to,
              Sweep sweep) const {
    Tensors<T, static_cast<int>(inputs)> tensors;
    for (std::size_t i = 0; i < inputs; ++i) tensors.from[i] = static_cast<const T*>(from[i]);
    tensors.to = static_cast<T*>(to);
    if (!extent_.columns) {
      const Planes planes{static_cast<int>(extent_.samples / extent_.groups), extent_.channels,
                          extent_.positions, spread_.lanes};
      launch(pass_over_planes<T, Map, Term>, spread_.grid, context_->stream, arguments, tensors,
             planes);
      return;
    }
    const Columns columns{extent_.count(), extent_.channels, spread_.lanes, sweep == Sweep::down};
    if (extent_.width() == 1) {
      launch(pass_over_columns<T, 1, Map, Term>, spread_.grid, context_->stream, arguments, tensors,
             columns);
    } else {
      launch(pass_over_columns<T, packet_size<T>, Map, Term>, spread_.grid, context_->stream,
             arguments, tensors, columns);
    }
  }

  Extent extent_;
  const Context* context_;
  Spread spread_;
};

// A bound node: what the recipes below read and write.
struct Bound {
  const Passes& passes;
  const std::vector<void*>& inputs;
  const std::vector<void*>& outputs;
  double* partials = nullptr;
  float eps = 0, second_eps = 0;  // inner_eps of pairs of gradients
  std::int64_t ranks = 1;

  const void* in(std::size_t i) const { return inputs[i]; }
  const float* floats(std::size_t i) const { return static_cast<const float*>(inputs[i]); }
  void* out(std::size_t i) const { return outputs[i]; }
  float* made(std::size_t i) const { return static_cast<float*>(outputs[i]); }

  // The moments that the partial sums say, into outputs `mean` and the next.
  void finish_moments(std::size_t mean) const {
    passes.finish(
        FinishMoments{made(mean), made(mean + 1), static_cast<double>(passes.extent().count())},
        partials);
  }
  // The sums of the gradient, into outputs `gamma` and the next one or two.
  template <bool prelu>
  void finish_grad(const PerChannel& of, std::size_t gamma) const {
    passes.finish(FinishGrad<prelu>{of.variance, of.eps, made(gamma), made(gamma + 1),
                                    prelu ? made(gamma + 2) : nullptr},
                  partials);
  }
  PassArguments arguments(const PerChannel& map, const PerChannel& term) const {
    return {map, term, partials};
  }
  // Of a norm, from input `mean` on: mean, variance, gamma, beta (, slope).
  PerChannel forward(std::size_t mean, float with_eps, bool prelu) const {
    return {.mean = floats(mean),
            .variance = floats(mean + 1),
            .gamma = floats(mean + 2),
            .beta = floats(mean + 3),
            .slope = prelu ? floats(mean + 4) : nullptr,
            .eps = with_eps};
  }
  float share() const {
    return static_cast<float>(1.0 / static_cast<double>(passes.extent().count() * ranks));
  }
};

// A recipe is a type with
//   op           the op's name, and priority; of chains instead `stages`
//   activations  which inputs are activations: alike in type and order
//   made         which outputs are
//   moments      the first input that is [groups, C], or -1: the attribute "groups", or one group
//   sums         how many sums its passes make at most
//   run(bound)   the passes; what writes output 0 is the last that reads input 0
template <class Recipe>
class NormKernel final : public Kernel {
 public:
  NormKernel(const Node& node, const KernelEnvironment& environment)
      : passes_(Extent(node.input(Recipe::activations[0]), groups_of(node)),
                context_of(environment)) {
    const Attributes& given = node.attributes;
    const auto number = [&](const char* name) {
      return given.has(name) ? static_cast<float>(given.number(name)) : 0.0f;
    };
    eps_ = number("eps");
    second_eps_ = given.has("inner_eps") ? number("inner_eps") : number("second_eps");
    if (given.has("ranks")) ranks_ = given.integer("ranks");
  }

  static std::int64_t groups_of(const Node& node) {
    if constexpr (Recipe::moments >= 0) {
      const Shape& moments = node.input(Recipe::moments).shape;
      return moments.rank() == 2 ? moments[0] : 1;
    }
    return node.attributes.has("groups") ? node.attributes.integer("groups") : 1;
  }

  std::size_t scratch_bytes() const override { return passes_.scratch_bytes(Recipe::sums); }
  // Output 0 is written by the last pass that reads input 0, each element by who has read it.
  int overwrites() const override { return Recipe::made.empty() ? -1 : 0; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    inputs_.assign(inputs.begin(), inputs.end());
    outputs_.assign(outputs.begin(), outputs.end());
    partials_ = static_cast<double*>(scratch);
  }
  void launch() override {
    Recipe::run(Bound{passes_, inputs_, outputs_, partials_, eps_, second_eps_, ranks_});
  }

 private:
  Passes passes_;
  std::vector<void*> inputs_, outputs_;
  double* partials_ = nullptr;
  float eps_ = 0, second_eps_ = 0;
  std::int64_t ranks_ = 1;
};

template <class Recipe>
std::string refuse_norm(const Node& node, const KernelEnvironment&) {
  const TensorType& x = node.input(Recipe::activations[0]);
  if (x.dtype != DType::f32 && x.dtype != DType::bf16 && x.dtype != DType::f16) {
    return "is for activations of floats, not " + x.text();
  }
  if (x.layout != row_major && x.layout != channels_last) return "does not know " + x.text();
  // Statistics are addressed by an int, groups are a dimension of the grid.
  const std::int64_t groups = NormKernel<Recipe>::groups_of(node);
  if (groups > 65535 || groups * x.shape[1] > 0x7fffffff) return "is for fewer groups and channels";
  const auto wrong = [&](const auto& activations, std::size_t i, const TensorType& type) {
    const bool like_x = std::find(activations.begin(), activations.end(), i) != activations.end();
    return like_x ? type.dtype != x.dtype || type.layout != x.layout
                  : type.dtype != DType::f32 || !type.layout.empty();
  };
  const auto reason = [&](const TensorType& type) {
    return "wants activations of one type and order, and everything else in f32, not " + x.text() +
           " and " + type.text();
  };
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (wrong(Recipe::activations, i, node.input(i))) return reason(node.input(i));
  }
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (wrong(Recipe::made, i, node.outputs[i])) return reason(node.outputs[i]);
  }
  return {};
}

template <class Recipe>
void add_norm(KernelList& list) {
  list.add({.op = Recipe::op,
            .name = "passes",
            .priority = Recipe::priority,
            .refuse = refuse_norm<Recipe>,
            .make = [](const Node& node,
                       const KernelEnvironment& environment) -> std::unique_ptr<Kernel> {
              return std::make_unique<NormKernel<Recipe>>(node, environment);
            }});
}

// The recipes of chains: types with `stages` in the place of `op`. One kernel that has them all.
template <class... Recipes>
struct ChainRecipes {
  // f(Recipe) of the one whose stages the node has; false: there is none.
  template <class F>
  static bool with(const Node& node, const F& f) {
    const std::string& stages = node.attributes.text("stages");
    return ((stages == Recipes::stages && (f(std::type_identity<Recipes>{}), true)) || ...);
  }

  static std::string refuse(const Node& node, const KernelEnvironment& environment) {
    std::string reason;
    const bool known = with(node, [&](auto recipe) {
      reason = refuse_norm<typename decltype(recipe)::type>(node, environment);
    });
    return known ? reason : "has other chains than " + node.attributes.text("stages");
  }

  static std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
    std::unique_ptr<Kernel> kernel;
    with(node, [&](auto recipe) {
      kernel = std::make_unique<NormKernel<typename decltype(recipe)::type>>(node, environment);
    });
    return kernel;
  }
};

// The recipes in whole_normalization.cu: chains that make their statistics, and gradients that make
// their sums.
bool has_whole_chain(const Node& node);
std::string refuse_whole_chain(const Node& node, const KernelEnvironment& environment);
std::unique_ptr<Kernel> make_whole_chain(const Node& node, const KernelEnvironment& environment);

// One kernel of an op's chains: those, and the given recipes.
template <class... Recipes>
void add_chains(std::string_view op, KernelList& list) {
  using Given = ChainRecipes<Recipes...>;
  list.add({.op = op,
            .name = "passes",
            .priority = 20,
            .refuse =
                [](const Node& node, const KernelEnvironment& environment) {
                  return has_whole_chain(node) ? refuse_whole_chain(node, environment)
                                               : Given::refuse(node, environment);
                },
            .make =
                [](const Node& node, const KernelEnvironment& environment) {
                  return has_whole_chain(node) ? make_whole_chain(node, environment)
                                               : Given::make(node, environment);
                }});
}

template <std::size_t... operands>
inline constexpr std::array<std::size_t, sizeof...(operands)> at = {operands...};

}  // namespace ftrain::cuda::norms
