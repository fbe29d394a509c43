// Dead nodes, common subexpressions, rebuilding.
#include "core/graph/passes.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "core/graph/opdef.h"
#include "core/graph/ops.h"

namespace ftrain {
namespace {

const TensorType vector3{DType::f32, {3}};

std::vector<std::string> op_names(const Graph& graph) {
  std::vector<std::string> names;
  for (std::int32_t i = 0; i < graph.size(); ++i) names.emplace_back(graph.node(i).op->name);
  return names;
}
std::int64_t count(const Graph& graph, std::string_view op) {
  const auto names = op_names(graph);
  return std::count(names.begin(), names.end(), op);
}

// Writes the state from moments [1, 3] given as inputs.
void write(Value state, Value other, Value moments, Value ok) {
  ops::update_running(state, other, {moments, moments}, ok, 0.1, 4);
}

TEST(RemoveDead, KeepsWhatFetchesAndWritesNeedAndAllLeaves) {
  Graph g;
  const Value x = g.input("x", vector3);
  g.input("unused", vector3);
  const Value mean = g.state({.name = "mean", .type = vector3});
  const Value variance = g.state({.name = "variance", .type = vector3});
  const Value moments = ops::reshape(ops::scale(x, 2), {1, 3});  // needed by the write alone
  const Value ok = ops::constant(g, 1);
  ops::relu(ops::relu(x));  // dead, both
  write(mean, variance, moments, ok);
  g.fetch("y", ops::add(x, x));

  const auto alive = remove_dead(g);
  EXPECT_THAT(op_names(*alive),
              testing::ElementsAre("input", "input", "state", "state", "scale", "reshape",
                                   "constant", "update_running", "add"));
  EXPECT_EQ(alive->fetches()[0].value.node().op->name, "add");
  EXPECT_EQ(alive->inputs().size(), 2u);
  EXPECT_EQ(alive->states().size(), 2u);
}

TEST(MergeCommon, MergesWholeEqualSubtrees) {
  Graph g;
  const Value x = g.input("x", vector3);
  const Value a = ops::add(ops::relu(ops::scale(x, 2)), x);
  const Value b = ops::add(ops::relu(ops::scale(x, 2)), x);
  g.fetch("y", ops::mul(a, b));
  const auto merged = merge_common(g);
  EXPECT_THAT(op_names(*merged), testing::ElementsAre("input", "scale", "relu", "add", "mul"));
  const Node& last = merged->fetches()[0].value.node();
  EXPECT_EQ(last.inputs[0], last.inputs[1]);
}

TEST(MergeCommon, KeepsApartWhatDiffersInAttributesInputsOutputsOrPayload) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {4, 3}});
  const Value y = g.input("y", {DType::f32, {4, 3}});
  g.fetch("a", ops::scale(x, 2));
  g.fetch("b", ops::scale(x, 3));
  g.fetch("c", ops::scale(y, 2));
  const ops::Moments m = ops::batch_moments(x);
  g.fetch("d", ops::sqrt(ops::sum(m.mean)));
  g.fetch("e", ops::sqrt(ops::sum(m.variance)));
  EXPECT_EQ(merge_common(g)->size(), g.size());
}

TEST(MergeCommon, DoesNotMergeAcrossAWriteOfAState) {
  Graph g;
  const Value w = g.state({.name = "w", .type = vector3});
  const Value v = g.state({.name = "v", .type = vector3});
  const Value moments = g.input("moments", {DType::f32, {1, 3}});
  const Value ok = ops::constant(g, 1);
  const Value before = ops::scale(w, 2);
  const Value same = ops::scale(w, 2);
  write(w, v, moments, ok);
  const Value after = ops::scale(w, 2);
  const Value after_too = ops::scale(w, 2);
  write(w, v, moments, ok);
  const Value last = ops::scale(w, 2);
  for (const Value value : {before, same, after, after_too, last}) g.fetch("f", value);

  const auto merged = merge_common(g);
  EXPECT_EQ(count(*merged, "scale"), 3);
  EXPECT_EQ(count(*merged, "update_running"), 2);
  const auto& f = merged->fetches();
  EXPECT_EQ(f[0].value, f[1].value);
  EXPECT_EQ(f[2].value, f[3].value);
  EXPECT_NE(f[0].value, f[2].value);
  EXPECT_NE(f[2].value, f[4].value);
  // Each stands on its side of the writes.
  std::vector<std::int32_t> writes;
  for (std::int32_t i = 0; i < merged->size(); ++i) {
    if (merged->node(i).op->name == "update_running") writes.push_back(i);
  }
  EXPECT_LT(f[0].value.node_index(), writes[0]);
  EXPECT_GT(f[2].value.node_index(), writes[0]);
  EXPECT_LT(f[2].value.node_index(), writes[1]);
  EXPECT_GT(f[4].value.node_index(), writes[1]);
}

TEST(MergeCommon, LeavesCollectivesAlone) {
  Graph g;
  const Value x = g.input("x", vector3);
  g.fetch("a", ops::all_reduce_sum(x, 2));
  g.fetch("b", ops::all_reduce_sum(x, 2));
  EXPECT_EQ(count(*merge_common(g), "all_reduce"), 2);
}

TEST(Rebuild, KeepsNamesLayoutsAndStates) {
  Graph g;
  const Value x = g.input("x", vector3);
  StateSpec spec{.name = "w", .type = vector3, .trainable = false, .first_row = 3, .rows = 9};
  const Value w = g.state(spec);
  const Value y = ops::add(x, w);
  g.node(y.node_index()).name = "sum";
  g.node(y.node_index()).outputs[0].layout = "blocked";
  g.fetch("y", y);
  const auto copy = remove_dead(g);
  EXPECT_EQ(copy->text(), g.text());
  EXPECT_EQ(copy->states()[0].spec.first_row, 3);
  EXPECT_EQ(copy->states()[0].spec.rows, 9);
  EXPECT_FALSE(copy->states()[0].spec.trainable);
  EXPECT_EQ(&copy->fetches()[0].value.graph(), copy.get());
}

TEST(UsesOf, ListsUsersByOutputInOrder) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {4, 3}});
  const ops::Moments m = ops::batch_moments(x);  // 1
  ops::add(m.variance, m.variance);              // 2
  ops::add(m.mean, m.variance);                  // 3
  const auto uses = uses_of(g);
  EXPECT_THAT(uses[0][0], testing::ElementsAre(1));
  EXPECT_THAT(uses[1][0], testing::ElementsAre(3));
  EXPECT_THAT(uses[1][1], testing::ElementsAre(2, 2, 3));
}

}  // namespace
}  // namespace ftrain
