// Scopes, layers, policies and the split of classes over ranks.
#include <gmock/gmock.h>

#include <numeric>

#include "ftrain/graph/opdef.h"
#include "ftrain/model/layers.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/model/parallelism.h"
#include "ftrain/model/schedule.h"

namespace ftrain {
namespace {

std::vector<std::string> state_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Graph::State& state : graph.states()) names.push_back(state.spec.name);
  return names;
}

std::int64_t count(const Graph& graph, std::string_view op) {
  std::int64_t found = 0;
  for (std::int32_t i = 0; i < graph.size(); ++i) found += graph.node(i).op->name == op;
  return found;
}

TEST(Scope, NamesWhatItMakesAndFindsItAgain) {
  Graph g;
  Build build{.graph = g};
  const Scope scope = Scope(build) / "layer1" / "0";
  const Value w = scope.parameter("weight", {3}, {Initializer::Kind::normal, 0, 0.1});
  EXPECT_EQ(scope.parameter("weight", {3}, {}), w);
  const Value mean = scope.statistic("running_mean", {3}, 1);
  EXPECT_THAT(state_names(g), testing::ElementsAre("layer1.0.weight", "layer1.0.running_mean"));
  EXPECT_EQ(g.state_of(w)->spec.role, StateSpec::Role::parameter);
  EXPECT_EQ(g.state_of(mean)->spec.role, StateSpec::Role::statistic);
  EXPECT_FALSE(g.state_of(mean)->spec.trainable);
}

TEST(Layers, AddParametersByTheirNames) {
  Graph g;
  Build build{.graph = g};
  const Scope scope(build);
  Value x = g.input("x", {DType::f32, {4, 6, 8, 8}});
  x = layers::conv2d(scope, "conv", x, 10, 3, {.stride = 2, .padding = 1, .groups = 2}, {});
  x = layers::batch_norm(scope, "bn", x, {.frozen_gamma = true});
  x = layers::prelu(scope, "prelu", x);
  x = layers::linear(scope, "fc", ops::flatten(x), 7, true, {});
  EXPECT_EQ(x.shape(), (Shape{4, 7}));
  EXPECT_EQ(g.find_state("conv.weight").shape(), (Shape{10, 3, 3, 3}));
  EXPECT_EQ(g.find_state("fc.weight").shape(), (Shape{7, 160}));
  EXPECT_THAT(state_names(g),
              testing::ElementsAre("conv.weight", "bn.weight", "bn.bias", "bn.running_mean",
                                   "bn.running_var", "prelu.weight", "fc.weight", "fc.bias"));
  EXPECT_FALSE(g.state_of(g.find_state("bn.weight"))->spec.trainable);
  EXPECT_TRUE(g.state_of(g.find_state("bn.bias"))->spec.trainable);
  EXPECT_EQ(g.state_of(g.find_state("prelu.weight"))->spec.initializer.a, 0.25);
  EXPECT_EQ(g.state_of(g.find_state("bn.running_var"))->spec.initializer.a, 1);
}

TEST(BatchNormLayer, TakesItsStatisticsAsTheBuildSays) {
  const auto build_one = [](auto change) {
    auto graph = std::make_unique<Graph>();
    Build build{.graph = *graph, .ranks = 4};
    change(build);
    layers::batch_norm(Scope(build), "bn", graph->input("x", {DType::f32, {8, 3, 2, 2}}));
    for (const auto& write : build.at_end) write(ops::constant(*graph, 1));
    return graph;
  };
  const auto rank = build_one([](Build&) {});
  EXPECT_EQ(count(*rank, "all_reduce"), 0);
  EXPECT_EQ(count(*rank, "update_running"), 1);
  const auto global = build_one([](Build& b) { b.global_norm = true; });
  EXPECT_GT(count(*global, "all_reduce"), 0);
  const auto groups = build_one([](Build& b) { b.norm_groups = 2; });
  EXPECT_EQ(count(*groups, "all_reduce"), 0);
  EXPECT_THAT(groups->text(), testing::HasSubstr("groups=2"));
  const auto evaluation = build_one([](Build& b) { b.training = false; });
  EXPECT_EQ(count(*evaluation, "batch_norm_fixed"), 1);
  EXPECT_EQ(count(*evaluation, "update_running"), 0);
}

TEST(DropoutLayer, IsTheIdentityInEvaluationAndDrawsByName) {
  Graph g;
  Build build{.graph = g};
  build.step = g.input("step", {DType::i64, {}});
  const Value x = g.input("x", {DType::f32, {4, 6}});
  const Scope scope(build);
  EXPECT_EQ(layers::dropout(scope, "a", x, 0), x);
  const Value a = layers::dropout(scope, "a", x, 0.4), b = layers::dropout(scope, "b", x, 0.4);
  EXPECT_NE(a.node().attributes.integer("seed"), b.node().attributes.integer("seed"));
  build.training = false;
  EXPECT_EQ(layers::dropout(scope, "a", x, 0.4), x);
}

struct Plain final : Optimizer {
  std::vector<std::string> slots() const override { return {"first", "second"}; }
  std::shared_ptr<const Update> update() const override { return nullptr; }
};

TEST(Optimizer, GivesDecayByNameAndRank) {
  Plain optimizer;
  optimizer.weight_decay = 0.1;
  optimizer.no_decay = {"vectors", "features"};
  optimizer.center_rate_factor = 2;
  optimizer.center_decay_factor = 0.5;
  EXPECT_EQ(optimizer.policy("conv1.weight", 4).decay, 0.1);
  EXPECT_EQ(optimizer.policy("fc.bias", 1).decay, 0);
  EXPECT_EQ(optimizer.policy("features.3.weight", 2).decay, 0);
  EXPECT_EQ(optimizer.policy("fc.weight", 2).rate_factor, 1);
  EXPECT_EQ(optimizer.center_policy().rate_factor, 2);
  EXPECT_DOUBLE_EQ(optimizer.center_policy().decay, 0.05);
}

// Opens the protected parts.
struct Split final : Parallelism {
  using Parallelism::Centers;
  using Parallelism::centers;
  using Parallelism::row_update;
  using Parallelism::Shard;
  using Parallelism::shard;
  ClassCenterStep class_centers(const StepBuild&, Value, Value, PartialGradients&) const override {
    return {};
  }
};

TEST(Parallelism, SplitsClassesEvenlyTheFirstRanksOneMore) {
  for (const std::int64_t classes : {1, 3, 37, 40, 85742}) {
    for (const std::int64_t ranks : {1, 2, 4, 7}) {
      std::int64_t next = 0;
      for (std::int64_t rank = 0; rank < ranks; ++rank) {
        const Split::Shard s = Split::shard(classes, rank, ranks);
        EXPECT_EQ(s.first, next);
        EXPECT_EQ(s.count, classes / ranks + (rank < classes % ranks ? 1 : 0));
        next += s.count;
      }
      EXPECT_EQ(next, classes);
    }
  }
}

TEST(Parallelism, MakesCentersThatKnowTheirPlaceInTheWhole) {
  Graph g;
  const Plain optimizer;
  const StepBuild build{g, 1, 4, 8, 37, 5, {}, {}, optimizer, nullptr};
  const Value embedding = g.input("x", {DType::f32, {8, 16}});
  const auto [weight, slots, row_steps] = Split().centers(build, embedding, Split::shard(37, 1, 4));
  const StateSpec& spec = g.state_of(weight)->spec;
  EXPECT_EQ(spec.name, "centers.weight");
  EXPECT_EQ(spec.type, (TensorType{DType::f32, {9, 16}}));
  EXPECT_EQ(spec.first_row, 10);
  EXPECT_EQ(spec.rows, 37);
  EXPECT_FALSE(row_steps.valid());  // the optimizer does not count them
  ASSERT_EQ(slots.size(), 2u);
  EXPECT_EQ(g.state_of(slots[1])->spec.name, "centers.weight.second");
  EXPECT_EQ(g.state_of(slots[1])->spec.role, StateSpec::Role::slot);
  EXPECT_EQ(g.state_of(slots[1])->spec.first_row, 10);
}

TEST(Parallelism, StoresCentersAsItsKeysSay) {
  Graph g;
  const Plain optimizer;
  StepBuild build{g, 1, 4, 8, 37, 5, {}, {}, optimizer, nullptr};
  build.step = g.input("step", {DType::i64, {}});
  const Value embedding = g.input("x", {DType::f32, {8, 16}});
  Split split;
  EXPECT_EQ(split.row_update(build, {}).step, build.step);
  split.centers_precision = "bf16";
  split.centers_memory = "host";
  const auto [weight, slots, row_steps] = split.centers(build, embedding, Split::shard(37, 1, 4));
  for (const Value& state : {weight, slots[0], slots[1]}) {
    const StateSpec& spec = g.state_of(state)->spec;
    EXPECT_EQ(spec.type, (TensorType{DType::bf16, {9, 16}}));
    EXPECT_EQ(spec.memory, StateSpec::Memory::host);
  }
  EXPECT_FALSE(row_steps.valid());
  EXPECT_EQ(split.row_update(build, {}).step, build.step);
  EXPECT_EQ(split.row_update(build, {}).seed, 5u);
}

TEST(Parallelism, ReducesGradientsInBuckets) {
  Graph g;
  const Plain optimizer;
  StepBuild build{g, 0, 2, 8, 37, 5, {}, {}, optimizer, nullptr};
  std::vector<Value> gradients;
  for (int i = 0; i < 5; ++i) {
    gradients.push_back(g.input("g" + std::to_string(i), {DType::f32, {(i == 1 ? 5 : 1) << 20}}));
  }
  const std::vector<Value> reduced = Split().reduce(build, gradients);
  ASSERT_EQ(reduced.size(), 5u);
  // 4 + 20 MiB; then each is a quarter of what is left, and the last has nothing to go beside.
  EXPECT_EQ(count(g, "all_reduce"), 4);
  for (std::size_t i = 0; i < 5; ++i) {
    const Value sum = reduced[i];
    EXPECT_EQ(sum.node().inputs[static_cast<std::size_t>(sum.output())], gradients[i]);
  }
  build.ranks = 1;
  EXPECT_EQ(Split().reduce(build, gradients), gradients);
}

TEST(Parallelism, BucketsAreNoLargerThanTheKeyAndNotTiny) {
  Graph g;
  const Plain optimizer;
  StepBuild build{g, 0, 2, 8, 37, 5, {}, {}, optimizer, nullptr};
  std::vector<Value> gradients;
  for (int i = 0; i < 400; ++i) {
    gradients.push_back(g.input("g" + std::to_string(i), {DType::f32, {1 << 16}}));  // 100 MiB
  }
  Split split;
  split.bucket = 8;
  split.reduce(build, gradients);
  std::vector<std::size_t> buckets;  // in quarters of a MiB
  for (std::int32_t i = 400; i < g.size(); ++i) buckets.push_back(g.node(i).inputs.size());
  EXPECT_EQ(buckets.front(), 32u);
  EXPECT_TRUE(std::is_sorted(buckets.rbegin(), buckets.rend()));
  EXPECT_EQ(buckets[buckets.size() - 2], 4u);
  EXPECT_LE(buckets.back(), 4u);
  EXPECT_LT(buckets.size(), 30u);
}

}  // namespace
}  // namespace ftrain
