// Emitting, inference errors, states and the printed form.
#include "ftrain/graph/graph.h"

#include <gmock/gmock.h>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <class F>
std::string shape_error(const F& f) {
  try {
    f();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "no ShapeError";
}

TEST(Graph, InfersShapes) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {2, 6, 9, 8}});
  const Value w = g.input("w", {DType::f32, {4, 3, 3, 3}});
  EXPECT_EQ(ops::conv2d(x, w, {.stride = 2, .padding = 1, .groups = 2}).shape(),
            (Shape{2, 4, 5, 4}));
  const Value flat = ops::flatten(x);
  EXPECT_EQ(flat.shape(), (Shape{2, 432}));
  const Value fc = g.input("fc", {DType::f32, {5, 432}});
  EXPECT_EQ(ops::linear(flat, fc).shape(), (Shape{2, 5}));
  EXPECT_EQ(ops::matmul(flat, flat, true, false).shape(), (Shape{432, 432}));
  EXPECT_EQ(ops::global_average_pool(x).shape(), (Shape{2, 6}));
  EXPECT_EQ(ops::batch_moments(x, 2).variance.shape(), (Shape{2, 6}));
  EXPECT_EQ(ops::normalize(flat).norms.shape(), (Shape{2}));
  EXPECT_EQ(ops::all_gather(flat, 3).shape(), (Shape{6, 432}));
  EXPECT_EQ(ops::reduce_scatter(flat, 2).shape(), (Shape{1, 432}));
  EXPECT_EQ(ops::mean(x).shape(), Shape{});
  EXPECT_EQ(ops::cast(x, DType::f64).dtype(), DType::f64);
  const Value image = g.input("image", {DType::u8, {2, 5, 7, 3}});
  const Value step = g.input("step", {DType::i64, {}});
  EXPECT_EQ(ops::image_normalize(image, step, {}).type(), (TensorType{DType::f32, {2, 3, 5, 7}}));
}

TEST(Graph, ErrorsNameTheOpTheRuleAndWhatCame) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {2, 3, 4, 4}});
  const Value y = g.input("y", {DType::f32, {2, 3}});
  EXPECT_EQ(
      shape_error([&] { ops::add(x, y); }),
      "add: both operands must have one type and shape; got a f32[2, 3, 4, 4] and b f32[2, 3]");
  const Value w = g.input("w", {DType::f32, {8, 2, 3, 3}});
  EXPECT_THAT(shape_error([&] { ops::conv2d(x, w, {.padding = 1}); }),
              AllOf(HasSubstr("conv2d: weight must be [K, C/groups, R, S]"),
                    HasSubstr("f32[8, 2, 3, 3]"), HasSubstr("padding=1")));
  const Value large = g.input("large", {DType::f32, {8, 3, 7, 7}});
  EXPECT_THAT(shape_error([&] { ops::conv2d(x, large); }), HasSubstr("as large as the kernel"));
  EXPECT_THAT(shape_error([&] { ops::matmul(y, y); }), HasSubstr("inner extents must agree"));
  EXPECT_THAT(shape_error([&] { ops::reshape(x, {5, 5}); }), HasSubstr("as many elements"));
  EXPECT_THAT(shape_error([&] { ops::batch_moments(x, 3); }), HasSubstr("multiple of the groups"));
  EXPECT_THAT(shape_error([&] { ops::reduce_scatter(y, 3); }), HasSubstr("divide by the ranks"));
  const Value centers = g.input("centers", {DType::f32, {10, 4}});
  const Value labels = g.input("labels", {DType::i64, {2}});
  EXPECT_THAT(shape_error([&] { ops::target_cosine(y, labels, centers, {}); }),
              HasSubstr("of one width D"));
}

TEST(Graph, AFailedEmitLeavesTheGraphAsItWas) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {2, 3}});
  const Value y = g.input("y", {DType::f32, {3, 2}});
  EXPECT_THROW(ops::add(x, y), ShapeError);
  EXPECT_EQ(g.size(), 2);
  EXPECT_EQ(ops::add(x, x).node_index(), 2);
}

TEST(Graph, RefusesValuesOfAnotherGraphAndWritesToWhatIsNoState) {
  Graph g, other;
  const Value x = g.input("x", {DType::f32, {3}});
  const Value y = other.input("y", {DType::f32, {3}});
  EXPECT_THROW(ops::add(x, y), std::logic_error);
  const Value m = g.input("m", {DType::f32, {1, 3}});
  const Value ok = g.input("ok", {DType::f32, {}});
  EXPECT_THROW(ops::update_running(x, x, {m, m}, ok, 0.1, 4), std::logic_error);
}

TEST(Graph, StatesHaveOneNameEachAndAreFoundByIt) {
  Graph g;
  const Value w = g.state({.name = "w", .type = {DType::f32, {3}}});
  EXPECT_THROW(g.state({.name = "w", .type = {DType::f32, {4}}}), std::logic_error);
  EXPECT_EQ(g.find_state("w"), w);
  EXPECT_FALSE(g.find_state("v").valid());
  ASSERT_NE(g.state_of(w), nullptr);
  EXPECT_EQ(g.state_of(w)->spec.name, "w");
  EXPECT_EQ(g.state_of(g.input("x", {DType::f32, {3}})), nullptr);
  g.set_layout(w, "blocked");
  EXPECT_EQ(w.type().layout, "blocked");
  EXPECT_EQ(g.states()[0].spec.type.layout, "blocked");
}

TEST(Graph, PrintsItself) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {2, 3, 4, 4}});
  const Value w = g.state({.name = "conv.weight", .type = {DType::f32, {5, 3, 3, 3}}});
  const Value y = ops::conv2d(x, w, {.padding = 1});
  g.node(y.node_index()).name = "conv";
  const ops::Moments m = ops::batch_moments(y);
  g.fetch("variance", m.variance);
  EXPECT_EQ(g.text(),
            "%0 = input x -> f32[2, 3, 4, 4]\n"
            "%1 = state conv.weight -> f32[5, 3, 3, 3]\n"
            "%2 = conv2d(%0, %1) stride=1 padding=1 groups=1 'conv' -> f32[2, 5, 4, 4]\n"
            "%3 = batch_moments(%2) groups=1 -> f32[1, 5], f32[1, 5]\n"
            "fetch variance = %3.1\n");
}

TEST(Graph, NodesStayWhereTheyAreWhileTheGraphGrows) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {3}});
  const Node* first = &g.node(0);
  Value y = x;
  for (int i = 0; i < 5000; ++i) y = ops::relu(y);
  EXPECT_EQ(&g.node(0), first);
  EXPECT_EQ(&x.node(), first);
}

TEST(Attributes, AreTypedAndPrinted) {
  Attributes a{
      {"stride", std::int64_t{2}}, {"flip", 0.5}, {"shape", std::vector<std::int64_t>{1, 2}}};
  EXPECT_EQ(a.integer("stride"), 2);
  EXPECT_THROW(a.number("stride"), std::logic_error);
  EXPECT_THROW(a.integer("padding"), std::logic_error);
  a.set("stride", std::int64_t{1});
  a.set("deep", true);
  EXPECT_EQ(a.text(), "stride=1 flip=0.5 shape=[1, 2] deep=true");
  EXPECT_TRUE(a.has("deep"));
  EXPECT_FALSE(a.has("depth"));
}

TEST(Collectives, AreTheIdentityAtOneRank) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {3, 2}});
  EXPECT_EQ(ops::all_gather(x, 1), x);
  EXPECT_EQ(ops::all_reduce_sum(x, 1), x);
  EXPECT_EQ(ops::reduce_scatter(x, 1), x);
  EXPECT_EQ(ops::broadcast(x, 0, 1), x);
  EXPECT_EQ(g.size(), 1);
}

}  // namespace
}  // namespace ftrain
