// What becomes of real networks' graphs on the CUDA device: layouts, fusions, copies in 16 bits,
// that a kernel takes every node, and how many bytes a step moves. Nothing is run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "core/compile/passes.h"
#include "core/compile/precision.h"
#include "core/ops/norm_chain.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/rewrite/layouts.h"
#include "tests/cuda/device_kernels.h"
#include "tests/cuda/networks.h"
#include "tests/cuda/traffic.h"

namespace ftrain::cuda {
namespace {

using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

std::map<std::string, int> ops_of(const Graph& graph) {
  std::map<std::string, int> found;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (!node.op->leaf) ++found[chain_title(node)];
  }
  return found;
}

// Of the nodes of that op, as "from -> to".
std::vector<std::string> types_of(const Graph& graph, std::string_view op) {
  std::vector<std::string> found;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->name != op || graph.state_of(node.inputs[0]) != nullptr) continue;
    found.push_back(node.input(0).text() + " -> " + node.outputs[0].text());
  }
  return found;
}

// ---- a kernel for every node

void expect_kernels(const Graph& graph) {
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->leaf || node.op->view) continue;
    try {
      kernels().list.choose(node, kernels().environment);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
      return;
    }
  }
}

// Which kernels do the convolutions.
std::map<std::string, int> convolution_kernels(const Graph& graph) {
  std::map<std::string, int> found;
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (!node.op->name.starts_with("conv2d")) continue;
    ++found[std::string(kernels().list.choose(node, kernels().environment).def->name)];
  }
  return found;
}

class Networks : public testing::TestWithParam<const char*> {};

TEST_P(Networks, HaveAKernelForEveryNode) {
  for (const char* parallelism : {"plugin = \"data_parallel\"\n", "plugin = \"model_parallel\"\n",
                                  "plugin = \"partial_fc\"\nsample_rate = 0.1\n",
                                  "plugin = \"model_parallel\"\nbatch_norm = \"global\"\n"}) {
    const auto assembly = assemble({.backbone = GetParam(), .parallelism = parallelism});
    for (const int ranks : {1, 4}) {
      const auto graph = training_graph(*assembly, 1000, ranks - 1, ranks);
      for (const char* precision : {"fp32", "bf16", "fp16"}) {
        SCOPED_TRACE(std::string(parallelism) + std::to_string(ranks) + " ranks, " + precision);
        expect_kernels(*rewritten(*graph, {.precision = precision, .advance = ranks > 1}).graph);
      }
    }
  }
}

TEST_P(Networks, HaveAKernelForEveryNodeWhenTheyRepeatThemselves) {
  const auto assembly = assemble({.backbone = GetParam(), .run = "accumulate = 2\n"});
  const auto graph = training_graph(*assembly, 1000, 0, 1);
  for (const char* policy : {"none", "cheap", "block"}) {
    SCOPED_TRACE(policy);
    expect_kernels(*rewritten(*graph, {.precision = "bf16", .recompute = policy}).graph);
  }
}

TEST_P(Networks, HaveAKernelForEveryNodeInEvaluation) {
  const auto assembly = assemble({.backbone = GetParam()});
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    SCOPED_TRACE(precision);
    expect_kernels(*rewritten(*evaluation_graph(*assembly, 8), {.precision = precision}).graph);
  }
}

std::string name_of_network(const testing::TestParamInfo<const char*>& info) {
  constexpr const char* names[] = {"r18", "r50", "r100", "mobilefacenet"};
  return names[info.index];
}
INSTANTIATE_TEST_SUITE_P(All, Networks, testing::Values(r18, r50, r100, mobilefacenet),
                         name_of_network);

// ---- layouts

std::unique_ptr<Graph> step_of(const char* backbone, std::int64_t batch = 8) {
  return training_graph(*assemble({.backbone = backbone, .batch = batch}), 1000, 0, 1);
}
std::unique_ptr<Graph> evaluation_of(const char* backbone) {
  return evaluation_graph(*assemble({.backbone = backbone}), 8);
}

// Into the flattened product and back out of it.
TEST(Layouts, MoveIResNetsActivationsTwice) {
  const auto f32 = rewritten(*step_of(r50)).graph;
  EXPECT_THAT(types_of(*f32, "reorder"),
              ElementsAre("f32[8, 512, 7, 7]:nhwc -> f32[8, 512, 7, 7]",
                          "f32[8, 512, 7, 7] -> f32[8, 512, 7, 7]:nhwc"));
  EXPECT_THAT(types_of(*f32, "relabel"), ElementsAre());
  const auto bf16 = rewritten(*step_of(r50), {.precision = "bf16"}).graph;
  EXPECT_EQ(types_of(*bf16, "reorder").size(), 2u);
  EXPECT_THAT(types_of(*rewritten(*evaluation_of(r50)).graph, "reorder"),
              ElementsAre("f32[8, 512, 7, 7]:nhwc -> f32[8, 512, 7, 7]"));
}

// Its last convolution leaves one position, whose channels lie the same in both orders.
TEST(Layouts, MoveMobileFaceNetsActivationsNever) {
  for (const char* precision : {"fp32", "bf16"}) {
    const auto graph = rewritten(*step_of(mobilefacenet), {.precision = precision}).graph;
    EXPECT_THAT(types_of(*graph, "reorder"), ElementsAre()) << precision;
    EXPECT_EQ(types_of(*graph, "relabel").size(), 2u) << precision;
  }
}

TEST(Layouts, AreChannelsLastAroundConvolutions) {
  for (const char* backbone : {r18, mobilefacenet}) {
    const auto graph = rewritten(*step_of(backbone), {.precision = "bf16"}).graph;
    for (std::int32_t i = 0; i < graph->size(); ++i) {
      const Node& node = graph->node(i);
      const bool laid_out =
          node.op->name.starts_with("conv2d") || node.op->name.starts_with("batch_norm") ||
          node.op->name.starts_with("norm_chain") || node.op->name == "image_normalize";
      if (!laid_out || node.outputs[0].shape.rank() != 4) continue;
      EXPECT_EQ(node.outputs[0].layout, channels_last) << node.op->name << ' ' << node.index;
    }
    for (const Graph::State& state : graph->states()) {
      EXPECT_EQ(state.spec.type.layout, state.spec.type.shape.rank() == 4 ? channels_last : "")
          << state.spec.name;
    }
  }
}

TEST(Layouts, GiveConvolutionsToTheKernelsMadeForThem) {
  const auto iresnet = rewritten(*step_of(r18), {.precision = "bf16"}).graph;
  EXPECT_THAT(convolution_kernels(*iresnet), UnorderedElementsAre(Pair("cudnn", 62)));
  const auto mobile = rewritten(*step_of(mobilefacenet), {.precision = "bf16"}).graph;
  const auto by = convolution_kernels(*mobile);
  EXPECT_EQ(by.count("direct"), 0u) << testing::PrintToString(by);
}

// A store that holds states in other orders, as a program compiled before left them.
class Store final : public StateStore {
 public:
  explicit Store(const Graph& graph) {
    for (const Graph::State& state : graph.states()) {
      entries_.push_back({state.spec, state.spec.type.bytes()});
    }
  }
  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view) const override { return true; }
  void read(std::string_view, void*) const override {}
  void write(std::string_view, const void*) override {}

 private:
  std::vector<Entry> entries_;
};

TEST(Layouts, OfStatesInTheStoreStay) {
  const auto graph = step_of(r18);
  const Store row_major_store(*graph), evaluated(*rewritten(*evaluation_of(r18)).graph);
  for (const Graph::State& state : rewritten(*graph, {}, &row_major_store).graph->states()) {
    EXPECT_EQ(state.spec.type.layout, "") << state.spec.name;
  }
  const auto first = rewritten(*graph), second = rewritten(*graph, {}, &evaluated);
  EXPECT_EQ(first.graph->text(), second.graph->text());
}

// ---- fusions

TEST(Fusions, OfIResNet18) {
  const auto step = ops_of(*rewritten(*step_of(r18)).graph);
  EXPECT_THAT(step, testing::IsSupersetOf({
                        Pair("conv2d", 21),
                        Pair("conv2d_input_grad", 20),
                        Pair("conv2d_weight_grad", 21),
                        Pair("norm_chain statistics norm prelu statistics norm", 1),
                        Pair("norm_chain statistics norm prelu", 8),
                        Pair("norm_chain statistics norm add statistics norm", 8),
                        Pair("norm_chain statistics norm", 5),
                        Pair("norm_chain_grad prelu sums input", 8),
                        Pair("norm_chain_grad norm add prelu sums input", 1),
                        Pair("norm_chain_grad norm add sums input", 7),
                        Pair("norm_chain_grad sums input", 7),
                        Pair("update_running_many", 1),
                        Pair("optimizer_update_many", 1),
                    }));
  for (const char* whole : {"batch_norm", "batch_moments", "batch_norm_sums", "prelu", "add",
                            "prelu_grad", "batch_norm_input_grad", "update_running"}) {
    EXPECT_EQ(step.count(whole), 0u) << whole;
  }
  EXPECT_THAT(
      ops_of(*rewritten(*evaluation_of(r18)).graph),
      UnorderedElementsAre(Pair("image_normalize", 1), Pair("conv2d", 21),
                           Pair("batch_norm_fixed", 14), Pair("norm_chain constant norm prelu", 9),
                           Pair("norm_chain constant norm add", 8), Pair("reorder", 1),
                           Pair("reshape", 1), Pair("matmul", 1), Pair("add_bias", 1)));
}

// Statistics of all ranks are summed between the passes.
TEST(Fusions, OfStatisticsOverRanks) {
  const auto assembly =
      assemble({.parallelism = "plugin = \"model_parallel\"\nbatch_norm = \"global\"\n"});
  const auto step = ops_of(*rewritten(*training_graph(*assembly, 1000, 0, 4)).graph);
  EXPECT_THAT(step, testing::IsSupersetOf({
                        Pair("norm_chain norm prelu", 9),
                        Pair("norm_chain_grad prelu sums", 9),
                        Pair("norm_chain_grad prelu input", 9),
                        Pair("norm_chain norm add", 8),
                        Pair("update_running_many", 1),
                    }));
}

// ---- casts

TEST(Casts, OfWeightsAreKeptAndOthersStandAtTheEnds) {
  for (const char* precision : {"bf16", "fp16"}) {
    const std::string to = std::string(precision) == "bf16" ? "bf16" : "f16";
    const Rewritten step = rewritten(*step_of(r18), {.precision = precision});
    ASSERT_EQ(step.kept.size(), static_cast<std::size_t>(step.graph->size()));
    int weights = 0;
    std::vector<std::string> others;
    for (std::int32_t i = 0; i < step.graph->size(); ++i) {
      const Node& node = step.graph->node(i);
      EXPECT_EQ(node.op->name == "cast" && step.graph->state_of(node.inputs[0]) != nullptr,
                step.kept[static_cast<std::size_t>(i)])
          << node.op->name << ' ' << i;
      weights += step.kept[static_cast<std::size_t>(i)];
    }
    EXPECT_EQ(weights, 21);
    EXPECT_THAT(types_of(*step.graph, "cast"),
                ElementsAre(to + "[8, 512, 7, 7]:nhwc -> f32[8, 512, 7, 7]:nhwc",
                            "f32[8, 512, 7, 7] -> " + to + "[8, 512, 7, 7]"));
  }
}

TEST(Casts, AreNotInSinglePrecision) {
  for (const char* precision : {"fp32", "tf32"}) {
    const Rewritten step = rewritten(*step_of(r18), {.precision = precision});
    EXPECT_EQ(ops_of(*step.graph).count("cast"), 0u);
    EXPECT_THAT(step.kept, testing::Each(false));
  }
}

// ---- the bytes of a step

// The table of docs/performance.md is what this prints: MB a sample at batch 128 in bf16.
TEST(Traffic, OfAStep) {
  struct Row {
    const char *name, *backbone;
    double convolutions, norms, again, rest;
    double unfused_norms;
  };
  const Row rows[] = {{"r50", r50, 75.4, 83.0, 50.7, 11.5, 198.5},
                      {"r100", r100, 117.7, 134.1, 81.4, 16.2, 317.9},
                      {"mobilefacenet", mobilefacenet, 48.1, 44.9, 24.3, 0.7, 105.2}};
  constexpr std::int64_t batch = 128;
  std::puts("                convolutions  norms  read again   rest  norms unfused");
  for (const Row& row : rows) {
    const auto graph = step_of(row.backbone, batch);
    const Rewritten step = rewritten(*graph, {.precision = "bf16"});
    Traffic moved = traffic_of(*step.graph, step.kept);
    const auto plain =
        assign_layouts(*lower_precision(*remove_dead(*merge_common(*graph)), DType::bf16),
                       kernels().list, kernels().environment, nullptr);
    double unfused = traffic_of(*plain, {}).norms;
    for (double* const bytes :
         {&moved.convolutions, &moved.norms, &moved.again, &moved.rest, &unfused}) {
      *bytes /= 1e6 * static_cast<double>(batch);
    }
    std::printf("%-16s%12.1f %6.1f %11.1f %6.1f %14.1f\n", row.name, moved.convolutions,
                moved.norms, moved.again, moved.rest, unfused);
    EXPECT_NEAR(moved.convolutions, row.convolutions, 0.05) << row.name;
    EXPECT_NEAR(moved.norms, row.norms, 0.05) << row.name;
    EXPECT_NEAR(moved.again, row.again, 0.05) << row.name;
    EXPECT_NEAR(moved.rest, row.rest, 0.05) << row.name;
    EXPECT_NEAR(unfused, row.unfused_norms, 0.05) << row.name;
  }
}

}  // namespace
}  // namespace ftrain::cuda
