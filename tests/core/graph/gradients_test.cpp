// The backward walk's structure; the numbers are checked per op by finite differences.
#include "ftrain/graph/gradients.h"

#include <gmock/gmock.h>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

const TensorType vector3{DType::f32, {3}};

Value gradient(Graph& g, Value of, Value seed, Value target) {
  return gradients(g, std::vector<Seed>{{of, seed}}, std::vector<Value>{target})[0];
}

TEST(Gradients, AddUpOverEveryPath) {
  Graph g;
  const Value x = g.input("x", vector3), seed = g.input("seed", vector3);
  const Value y = ops::add(ops::scale(x, 2), ops::add(x, ops::scale(x, 3)));
  const Value dx = gradient(g, y, seed, x);
  ASSERT_TRUE(dx.valid());
  EXPECT_EQ(dx.node().op->name, "add");
  EXPECT_EQ(dx.shape(), x.shape());
}

TEST(Gradients, TakeSeveralSeeds) {
  Graph g;
  const Value x = g.input("x", vector3), a = g.input("a", vector3), b = g.input("b", vector3);
  const Value y = ops::relu(x), z = ops::scale(x, 2);
  const auto dx = gradients(g, std::vector<Seed>{{y, a}, {z, b}}, std::vector<Value>{x})[0];
  ASSERT_TRUE(dx.valid());
  EXPECT_EQ(dx.node().op->name, "add");
}

TEST(Gradients, OfASeedItselfIsItsGradient) {
  Graph g;
  const Value x = g.input("x", vector3), seed = g.input("seed", vector3);
  EXPECT_EQ(gradient(g, x, seed, x), seed);
}

TEST(Gradients, AreInvalidWhereNothingFlows) {
  Graph g;
  const Value x = g.input("x", vector3), other = g.input("other", vector3);
  const Value seed = g.input("seed", vector3);
  EXPECT_FALSE(gradient(g, ops::relu(x), seed, other).valid());
  EXPECT_FALSE(gradient(g, x, seed, ops::relu(x)).valid());
}

TEST(Gradients, DoNotWalkBelowTheTargets) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {4, 3}});
  const Value seed = g.input("seed", {DType::f32, {4, 3}});
  const Value w = g.state({.name = "w", .type = {DType::f32, {3, 3}}});
  const Value y = ops::matmul(ops::relu(x), w);
  const std::int32_t before = g.size();
  const Value dw = gradient(g, y, seed, w);
  EXPECT_EQ(dw.shape(), w.shape());
  for (std::int32_t i = before; i < g.size(); ++i) EXPECT_NE(g.node(i).op->name, "relu_grad");
}

TEST(Gradients, NameAnOpWithoutOne) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {}}), seed = g.input("seed", {DType::f32, {}});
  try {
    Value root = ops::clip_coefficient(x, 1);
    g.node(root.node_index()).name = "layer7";
    gradient(g, root, seed, x);
    FAIL() << "clip_coefficient has no gradient";
  } catch (const PluginError& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("'clip_coefficient' at 'layer7'"),
                               testing::HasSubstr("libftrain_core.so"), testing::HasSubstr("vjp")));
  }
}

TEST(Gradients, OfCollectivesAreCollectives) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {4, 3}});
  const Value gathered = g.input("gathered", {DType::f32, {8, 3}});
  const Value part = g.input("part", {DType::f32, {2, 3}});
  EXPECT_EQ(gradient(g, ops::all_gather(x, 2), gathered, x).node().op->name, "reduce_scatter");
  EXPECT_EQ(gradient(g, ops::reduce_scatter(x, 2), part, x).node().op->name, "all_gather");
  EXPECT_EQ(gradient(g, ops::all_reduce_sum(x, 2), x, x).node().op->name, "all_reduce");
}

}  // namespace
}  // namespace ftrain
