// Dead nodes, common subexpressions, collectives, rebuilding.
#include "core/compile/passes.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

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

TEST(AdvanceCollectives, StandRightBehindWhatTheyNeed) {
  Graph g;
  const Value x = g.input("x", vector3);
  const Value a = ops::scale(x, 2);
  const Value b = ops::scale(a, 3);
  Value c = b;
  for (int i = 0; i < 3; ++i) c = ops::relu(c);
  const std::vector<Value> sums = ops::all_reduce_sum({b, a}, 2);
  const Value late = ops::all_reduce_sum(c, 2);
  const Value chained = ops::all_reduce_sum(sums[1], 2);
  g.fetch("y", ops::add(ops::add(sums[0], late), ops::add(chained, c)));
  const auto advanced = advance_collectives(g);
  EXPECT_THAT(op_names(*advanced),
              testing::ElementsAre("input", "scale", "scale", "all_reduce", "all_reduce", "relu",
                                   "relu", "relu", "all_reduce", "add", "add", "add"));
  // Nothing else has changed: inputs are what they were.
  const Node& first = advanced->node(3);
  EXPECT_EQ(first.inputs.size(), 2u);
  EXPECT_EQ(first.inputs[0].node_index(), 2);
  EXPECT_EQ(first.inputs[1].node_index(), 1);
  EXPECT_EQ(advanced->node(4).inputs[0], Value(advanced.get(), 3, 1));
  EXPECT_EQ(advanced->fetches()[0].value.node_index(), 11);
  // Once is enough.
  EXPECT_EQ(advance_collectives(*advanced)->text(), advanced->text());
}

// Sums of gradients are made at the end of a step that takes its samples in parts.
TEST(AdvanceCollectives, TakeTheirAdditionsAlong) {
  Graph g;
  const Value x = g.input("x", vector3);
  const Value a = ops::scale(x, 2), b = ops::relu(x), c = ops::relu(b);
  const Value sum = ops::add(a, b);       // for the collective alone
  const Value shared = ops::add(sum, c);  // fetched too
  const Value viewed = ops::reshape(sum, {3, 1});
  g.fetch("y", ops::all_reduce_sum(viewed, 2));
  g.fetch("z", ops::all_reduce_sum(shared, 2));
  g.fetch("shared", shared);
  // The sum serves a fetched value too and stays; its view does not.
  EXPECT_THAT(op_names(*advance_collectives(g)),
              testing::ElementsAre("input", "scale", "relu", "relu", "add", "reshape", "all_reduce",
                                   "add", "all_reduce"));
  Graph h;
  const Value y = h.input("x", vector3);
  const Value d = ops::relu(y), e = ops::relu(d);
  ops::relu(e);
  h.fetch("y", ops::all_reduce_sum(ops::reshape(ops::add(y, d), {3, 1}), 2));
  EXPECT_THAT(
      op_names(*advance_collectives(h)),
      testing::ElementsAre("input", "relu", "add", "reshape", "all_reduce", "relu", "relu"));
}

TEST(AdvanceCollectives, KeepTheirPlaceAmongWritesOfWhatTheyRead) {
  Graph g;
  const Value w = g.state({.name = "w", .type = vector3});
  const Value v = g.state({.name = "v", .type = vector3});
  const Value moments = g.input("moments", {DType::f32, {1, 3}});
  const Value ok = ops::constant(g, 1);
  write(w, v, moments, ok);
  ops::relu(ok);
  g.fetch("between", ops::broadcast(ops::reshape(w, {3, 1}), 0, 2));
  write(w, v, moments, ok);
  ops::relu(ok);
  g.fetch("after", ops::broadcast(w, 0, 2));
  EXPECT_THAT(
      op_names(*advance_collectives(g)),
      testing::ElementsAre("state", "state", "input", "constant", "update_running", "reshape",
                           "broadcast", "relu", "update_running", "broadcast", "relu"));
}

// The update of class centers whose gradient is summed: the backward walk goes on before it.
TEST(AdvanceCollectives, WritesThatNeedThemArePutOffUntilTheirStateIsWanted) {
  Graph g;
  const Value w = g.state({.name = "w", .type = vector3});
  const Value v = g.state({.name = "v", .type = vector3});
  const Value a = g.state({.name = "a", .type = vector3});
  const Value b = g.state({.name = "b", .type = vector3});
  const Value moments = g.input("moments", {DType::f32, {1, 3}});
  const Value ok = ops::constant(g, 1);
  write(w, v, ops::all_reduce_sum(moments, 2), ok);
  write(a, b, ops::all_reduce_sum(moments, 2), ok);
  write(a, b, moments, ok);  // no collective's, but behind one that is put off
  Value x = ops::relu(moments);
  x = ops::add(x, ops::reshape(ops::scale(v, 2), {1, 3}));  // as it is after the write
  g.fetch("x", ops::relu(x));
  EXPECT_THAT(op_names(*advance_collectives(g)),
              testing::ElementsAre("state", "state", "state", "state", "input", "all_reduce",
                                   "all_reduce", "constant", "update_running", "update_running",
                                   "update_running", "relu", "scale", "reshape", "add", "relu"));
  Graph h;
  const Value m = h.input("moments", {DType::f32, {1, 3}});
  const Value hw = h.state({.name = "w", .type = vector3});
  const Value hv = h.state({.name = "v", .type = vector3});
  const Value fine = ops::constant(h, 1);
  write(hw, hv, ops::all_reduce_sum(m, 2), fine);
  h.fetch("x", ops::relu(ops::relu(m)));
  EXPECT_THAT(op_names(*advance_collectives(h)),
              testing::ElementsAre("input", "all_reduce", "state", "state", "constant", "relu",
                                   "relu", "update_running"));
}

// Ranks hold unequal numbers of classes: other shapes, the same structure.
TEST(AdvanceCollectives, AreInOneOrderOnRanksOfOtherShapes) {
  const auto order = [](std::int64_t classes) {
    Graph g;
    const Value x = g.input("x", {DType::f32, {4, 3}});
    const Value w = g.state({.name = "w", .type = {DType::f32, {classes, 3}}});
    const Value logits = ops::matmul(x, w, false, true);
    const Value target = ops::sum(logits);
    const Value dx = ops::matmul(logits, w);
    g.fetch("dx", ops::reduce_scatter(ops::all_gather(dx, 2), 2));
    g.fetch("target", ops::all_reduce_sum(target, 2));
    std::vector<std::string> names;
    const auto advanced = advance_collectives(g);
    for (std::int32_t i = 0; i < advanced->size(); ++i) {
      if (is_collective(advanced->node(i))) names.emplace_back(advanced->node(i).op->name);
    }
    return names;
  };
  EXPECT_EQ(order(5), order(6));
  EXPECT_THAT(order(5), testing::ElementsAre("all_reduce", "all_gather", "reduce_scatter"));
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
