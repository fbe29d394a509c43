// The folded program of an evaluated network against the unfolded one, and its ops against their
// plain kernels.
#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "core/compile/cached.h"
#include "core/compile/passes.h"
#include "ftrain/config/table.h"
#include "ftrain/model/backbone.h"
#include "ftrain/ops.h"
#include "ftrain/plugin/registry.h"
#include "plugins/devices/cpu/device/device.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/folded/ops.h"
#include "plugins/devices/cpu/graph_runner.h"
#include "plugins/devices/cpu/rewrite/fold.h"
#include "plugins/devices/cpu/step.h"

namespace ftrain::cpu {
namespace {

using testing::HasSubstr;
using testing::Not;

int count(const Graph& graph, std::string_view op) {
  int found = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) found += graph.node(i).op->name == op;
  return found;
}

// A state that is written keeps a program from being folded.
void forbid_folding(Graph& graph) {
  const auto scalar = [&](const char* name) {
    return graph.state({.name = name, .type = {DType::f32, {1}}});
  };
  const Value x = graph.input("unfolded", {DType::f32, {2, 1}});
  ops::update_running(scalar("a"), scalar("b"), ops::batch_moments(x),
                      graph.input("ok", {DType::f32, {}}), 0.1, 2);
}

// Weights that keep activations at their size, and statistics of batch norms that do much.
void fill_network(StateStore& store, std::uint32_t salt = 0) {
  for (const StateStore::Entry& entry : store.entries()) {
    const Shape& shape = entry.spec.type.shape;
    const std::string& name = entry.spec.name;
    std::vector<float> values = noise(shape.elements(), seed_of(name) + salt);
    const double fan = static_cast<double>(shape.elements()) / static_cast<double>(shape[0]);
    for (float& v : values) {
      if (shape.rank() > 1)
        v *= static_cast<float>(std::sqrt(6 / fan));
      else if (name.ends_with("running_var"))
        v = 0.6f + 0.5f * v;
      else if (name.ends_with("running_mean") || name.ends_with("bias"))
        v *= 0.5f;
      else
        v = (name.find("prelu") != std::string::npos ? 0.0f : 1.0f) + 0.3f * v;
    }
    store.write(name, values.data());
  }
}

struct Network {
  std::string name, plugin, keys;
  std::int64_t size = 32;
};

const Network networks[] = {
    {"r18", "iresnet", "depth = 18"},
    {"r50", "iresnet", "depth = 50"},
    {"gdc", "iresnet", "depth = 18\nfc = \"GDC\"\nembedding = 64"},
    {"mbf", "mobilefacenet", "scale = 2", 48},
    {"y1", "mobilefacenet", "scale = 1\nembedding = 128\neps = 1e-3"},
};

std::unique_ptr<Graph> network_graph(const Network& network, bool folds) {
  static Registry registry({FTRAIN_PLUGINS});
  const Job job = Job::parse("[backbone]\nplugin = \"" + network.plugin + "\"\n" + network.keys);
  const auto backbone = registry.create<Backbone>(job);
  auto graph = std::make_unique<Graph>();
  const Value image = graph->input("image", {DType::f32, {3, 3, network.size, network.size}});
  Build build{.graph = *graph, .training = false};
  graph->fetch("embedding", backbone->forward(Scope(build), image));
  if (!folds) forbid_folding(*graph);
  return graph;
}

// A network on a device with its states and one batch of images.
struct Evaluated {
  std::unique_ptr<StateStore> store;
  std::unique_ptr<Executable> executable;

  Evaluated(CpuDevice& device, const Network& network, bool folds) {
    store = device.make_store();
    executable = device.compile(
        device.prepare(*network_graph(network, folds), store.get(), nullptr), *store, nullptr);
    fill_network(*store);
    fill_inputs(*executable);
  }

  std::vector<float> embedding() {
    executable->run();
    const Value value = executable->program().graph->fetches()[0].value;
    std::vector<float> values(static_cast<std::size_t>(value.shape().elements()));
    executable->read("embedding", values.data());
    return values;
  }
};

// The largest length of a difference of rows, in lengths of the row.
double row_distance(const std::vector<float>& a, const std::vector<float>& b, std::size_t rows) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    double difference = 0, length = 0;
    for (std::size_t i = r * a.size() / rows; i < (r + 1) * a.size() / rows; ++i) {
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      length += std::pow(static_cast<double>(b[i]), 2);
    }
    const double distance = std::sqrt(difference / length);
    if (!(distance <= worst)) worst = distance;
  }
  return worst;
}

std::unique_ptr<CpuDevice> device_without_winograd(const std::string& isa = "auto") {
  auto device = std::make_unique<CpuDevice>();
  device->threads = 2;
  device->winograd = "off";
  device->autotune = false;
  device->isa = isa;
  device->open(0, 1);
  return device;
}

TEST(Fold, NetworksEvaluateAsUnfolded) {
  const auto device = device_without_winograd();
  for (const Network& network : networks) {
    Evaluated folded(*device, network, true), unfolded(*device, network, false);
    EXPECT_LT(row_distance(folded.embedding(), unfolded.embedding(), 3), 1e-5) << network.name;
  }
}

TEST(Fold, NetworksEvaluateAsPlainLoops) {
  const auto fast = open_device(), plain = open_device("reference");
  for (const Network& network : {networks[0], networks[4]}) {
    Evaluated folded(*fast, network, true), unfolded(*plain, network, true);
    EXPECT_THAT(unfolded.executable->program().kernels_text(), Not(HasSubstr("folded")));
    EXPECT_TRUE(unfolded.executable->program().kept.empty());
    // Winograd's rounding is coarser.
    EXPECT_LT(row_distance(folded.embedding(), unfolded.embedding(), 3), 1e-4) << network.name;
  }
}

int compare_with_isa(const std::string& isa) {
  const auto device = device_without_winograd(isa);
  for (const Network& network : networks) {
    Evaluated folded(*device, network, true), unfolded(*device, network, false);
    const double distance = row_distance(folded.embedding(), unfolded.embedding(), 3);
    if (!(distance < 1e-5)) return 1;
  }
  return 0;
}

TEST(FoldDeathTest, OtherInstructionSets) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const char* isa : {"plain", "avx2"}) {
    if (isa == best_isa()) break;
    EXPECT_EXIT(std::exit(compare_with_isa(isa)), testing::ExitedWithCode(0), "") << isa;
  }
}

TEST(Fold, NothingOfANetworksBlocksIsLeft) {
  for (const Network& network : networks) {
    const auto graph = network_graph(network, true);
    const auto folded = fold(*graph, {});
    EXPECT_EQ(count(*folded, "conv2d_folded"), count(*graph, "conv2d")) << network.name;
    EXPECT_EQ(count(*folded, "conv2d") + count(*folded, "prelu") + count(*folded, "add"), 0);
    // Behind the last block alone, and over the embedding.
    EXPECT_LE(count(*folded, "batch_norm_fixed"), 2) << network.name;
    EXPECT_EQ(remove_dead(*folded)->size(), folded->size()) << network.name;
    EXPECT_TRUE(kept_nodes(*network_graph(network, false)).empty());
    EXPECT_EQ(count(*fold(*network_graph(network, false), {}), "conv2d_folded"), 0);
  }
}

TEST(Fold, KeepsWhatStatesMakeUntilTheyAreWritten) {
  const auto device = open_device();
  Evaluated network(*device, networks[4], true);
  const std::vector<float> before = network.embedding();
  EXPECT_EQ(network.embedding(), before);
  fill_network(*network.store, 99);
  network.executable->refresh();
  const std::vector<float> after = network.embedding();
  Evaluated fresh(*device, networks[4], true);
  fill_network(*fresh.store, 99);
  EXPECT_EQ(after, fresh.embedding());
  EXPECT_GT(row_distance(after, before, 3), 0.1);
}

TEST(Fold, KeptStorageIsNobodyElses) {
  const auto device = open_device();
  const auto graph = network_graph(networks[0], true);
  const auto store = device->make_store();
  const Program program = device->prepare(*graph, store.get(), nullptr);
  const std::vector<bool> lasting = lasting_nodes(*program.graph, program.kept);
  int checked = 0;
  for (std::size_t i = 0; i < lasting.size(); ++i) {
    if (!lasting[i]) continue;
    const Block& kept = program.plan.values[i][0];
    EXPECT_EQ(kept.home, Block::Home::arena);
    const auto apart = [&](const Block& block) {
      return block.home != Block::Home::arena || block.offset >= kept.offset + kept.bytes ||
             kept.offset >= block.offset + block.bytes;
    };
    for (std::size_t n = 0; n < lasting.size(); ++n) {
      EXPECT_TRUE(apart(program.plan.scratch[n]));
      for (const Block& block : program.plan.values[n]) EXPECT_TRUE(n == i || apart(block));
    }
    ++checked;
  }
  EXPECT_GT(checked, 20);
}

// A convolution with everything around it, and what is changed about it.
struct Pattern {
  Graph graph;
  Value x, raw, norm, y;

  explicit Pattern(bool states = true) : states_(states) {
    x = graph.input("x", {DType::f32, {2, 16, 6, 5}});
    raw = ops::conv2d(normalized("before", x), leaf("weight", {16, 16, 3, 3}), {.padding = 1});
    norm = normalized("behind", raw);
    y = ops::add(x, ops::prelu(norm, leaf("slope", {16})));
    graph.fetch("y", y);
  }

 private:
  Value leaf(const std::string& name, const Shape& shape) {
    const TensorType type{DType::f32, shape};
    return states_ ? graph.state({.name = name, .type = type}) : graph.input(name, type);
  }
  Value normalized(const std::string& name, Value from) {
    const auto channels = [&](const char* what) { return leaf(name + what, {16}); };
    const Value mean = channels(".running_mean"), variance = channels(".running_var");
    return ops::batch_norm_fixed(from, mean, variance, channels(".weight"), channels(".bias"),
                                 1e-5);
  }
  bool states_;
};

TEST(Fold, TakesWhatStandsBehindAndBefore) {
  Pattern all;
  const auto folded = fold(all.graph, {});
  EXPECT_EQ(count(*folded, "conv2d_folded"), 1);
  EXPECT_EQ(count(*folded, "batch_norm_fixed") + count(*folded, "prelu") + count(*folded, "add"),
            0);
}

TEST(Fold, LeavesWhatIsUsedElsewhere) {
  Pattern raw_is_fetched;
  raw_is_fetched.graph.fetch("raw", raw_is_fetched.raw);
  const auto without_behind = fold(raw_is_fetched.graph, {});
  EXPECT_EQ(count(*without_behind, "conv2d_folded"), 1);  // with the one before it
  EXPECT_EQ(count(*without_behind, "batch_norm_fixed"), 1);
  EXPECT_EQ(count(*without_behind, "prelu"), 1);

  Pattern norm_is_used;
  norm_is_used.graph.fetch("relu", ops::relu(norm_is_used.norm));
  EXPECT_EQ(count(*fold(norm_is_used.graph, {}), "prelu"), 1);

  Pattern no_states(false);
  EXPECT_EQ(count(*fold(no_states.graph, {}), "conv2d_folded"), 0);
}

// ---- the kernels

struct FoldedCase {
  const char* name;
  std::int64_t channels, results, size, kernel;
  ops::Conv2d options;
  bool by_position = false, prelu = false, add = false;
};

const FoldedCase folded_cases[] = {
    {"image", 3, 32, 9, 3, {.padding = 1}, false, true, false},
    {"block's first", 32, 32, 7, 3, {.padding = 1}, true, true, false},
    {"block's second", 32, 64, 7, 3, {.padding = 1}, false, false, true},
    {"all of it", 32, 32, 7, 3, {.padding = 1}, true, true, true},
    {"strided", 32, 64, 8, 3, {.stride = 2, .padding = 1}, true, false, true},
    {"shortcut", 32, 64, 8, 1, {.stride = 2}, false, false, false},
    {"expansion", 32, 64, 6, 1, {}, false, true, false},
    {"projection", 64, 32, 6, 1, {}, false, true, true},
    {"depthwise", 32, 32, 7, 3, {.padding = 1, .groups = 32}, false, true, false},
    {"strided depthwise",
     32,
     32,
     8,
     3,
     {.stride = 2, .padding = 1, .groups = 32},
     false,
     true,
     true},
    {"groups of two", 32, 32, 6, 3, {.padding = 1, .groups = 16}, false, true, false},
    {"whole image", 32, 32, 6, 6, {.groups = 32}, false, false, false},
};

// The case's graph with 4-D operands in a layout; weights stay row-major.
struct FoldedConvolution {
  Graph graph;
  Value y;

  FoldedConvolution(const FoldedCase& c, std::int64_t block, std::int64_t batch = 3) {
    const auto layout = [&](Shape shape) {
      return TensorType{DType::f32, shape, shape[1] % block == 0 ? blocked_layout(block) : ""};
    };
    const Value x = graph.input("x", layout({batch, c.channels, c.size, c.size}));
    const Value weight = graph.input(
        "weight", {DType::f32, {c.results, c.channels / c.options.groups, c.kernel, c.kernel}});
    const std::int64_t size = (c.size + 2 * c.options.padding - c.kernel) / c.options.stride + 1;
    const TensorType channels{DType::f32, {c.results}};
    const Value bias =
        graph.input("bias", c.by_position ? layout({1, c.results, size, size}) : channels);
    const Value slope = c.prelu ? graph.input("slope", channels) : Value();
    const Value other =
        c.add ? graph.input("other", layout({batch, c.results, size, size})) : Value();
    y = conv2d_folded(x, weight, bias, slope, other, c.options);
    graph.node(y.node_index()).outputs[0].layout = blocked_layout(block);
  }

  std::vector<float> run(const KernelList& kernels, const KernelEnvironment& environment,
                         const std::string& only) {
    GraphRunner runner(graph, kernels, environment, only);
    for (const Graph::Named& input : graph.inputs()) {
      runner.set(input.value, noise(input.value.shape().elements(), seed_of(input.name)));
    }
    runner.run();
    return runner.get(y);
  }
};

TEST(FoldedKernels, EachAgreesWithPlainLoops) {
  const KernelOptions options{.winograd = true};
  KernelList kernels;
  add_folded_kernels(kernels);
  for (const FoldedCase& c : folded_cases) {
    const std::vector<float> expected =
        FoldedConvolution(c, 1).run(kernels, {.threads = 2, .isa = "plain"}, "plain");
    int tried = 0;
    for (const KernelDef* def : kernels.of("conv2d_folded")) {
      for (const char* isa : {"plain", "avx2", "avx512"}) {
        for (const int threads : {1, 2}) {
          const KernelEnvironment environment{.threads = threads, .isa = isa, .device = &options};
          FoldedConvolution fast(c, preferred_block(isa));
          if (!def->refuse(fast.y.node(), environment).empty()) continue;
          const std::vector<float> got = fast.run(kernels, environment, std::string(def->name));
          EXPECT_LT(distance(got, expected), 2e-5) << c.name << " by " << def->name << ", " << isa;
          ++tried;
        }
      }
    }
    EXPECT_GE(tried, 2) << c.name;
  }
}

TEST(FoldedKernels, LastStepsOfALargeBatchGoSliceBySlice) {
  // More bytes than one slice: the result of each image must still get its own.
  const FoldedCase c{"large", 16, 16, 160, 1, {}, true, true, true};
  KernelList kernels;
  add_folded_kernels(kernels);
  const KernelEnvironment environment{.threads = 2, .isa = best_isa()};
  constexpr std::int64_t batch = 12;
  const std::vector<float> expected =
      FoldedConvolution(c, 1, batch).run(kernels, environment, "plain");
  const std::vector<float> got = FoldedConvolution(c, preferred_block(best_isa()), batch)
                                     .run(kernels, environment, "onednn direct, pass");
  EXPECT_LT(distance(got, expected), 1e-5);
}

}  // namespace
}  // namespace ftrain::cpu
