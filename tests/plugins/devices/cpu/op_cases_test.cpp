// The rows of the op table, and that no op is missing among them.
#include "tests/plugins/devices/cpu/op_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/compile/merge_updates.h"
#include "ftrain/ops.h"
#include "tests/plugins/devices/cpu/case_payloads.h"

namespace ftrain::cpu {
namespace {

using Outputs = std::vector<Value>;

OpCase conv(const std::string& name, Shape x, Shape weight, ops::Conv2d options) {
  return {"conv2d " + name,
          [=](CaseGraph& g) { return Outputs{ops::conv2d(g.real(x), g.real(weight), options)}; }};
}

OpCase product(const std::string& name, Shape a, Shape b, bool ta, bool tb) {
  return {"matmul " + name,
          [=](CaseGraph& g) { return Outputs{ops::matmul(g.real(a), g.real(b), ta, tb)}; }};
}

OpCase norm(const std::string& name, Shape shape, std::int64_t groups) {
  return {"batch_norm " + name, [=](CaseGraph& g) {
            const Value x = g.real(shape, -1, 3);
            const Shape channels{shape[1]};
            const Value gamma = g.real(channels, 0.5, 1.5), beta = g.real(channels);
            return Outputs{ops::batch_norm(x, ops::batch_moments(x, groups), gamma, beta)};
          }};
}

// Both walks over the class centers, with the dense gradient and with the update in place.
OpCase class_centers(const std::string& name, bool plain_others, bool normalized, bool sampled,
                     bool all_rows, bool keep_cosines = false, bool adds = false,
                     bool counts_rows = false, bool terms = false) {
  return {"class centers " + name, [=](CaseGraph& g) {
            constexpr std::int64_t batch = 5, width = 24, classes = 37, first = 11;
            ops::ClassCenters c{std::make_shared<TestMargin>(plain_others, normalized), first,
                                1.0 / batch, keep_cosines};
            if (terms) c.terms = g.fixed({3, batch}, 0, 0.5);
            const Value raw = g.fixed({batch, width});
            const ops::Normalized n = ops::normalize(raw);
            const Value features = normalized ? n.rows : raw;
            // One label is another rank's.
            const Value labels = g.list({first + 3, first + 36, first, first + 3, 2});
            const Value weight = g.state({classes, width}, -0.2, 0.2);
            const Value slot = g.state({classes, width}, -0.01, 0.01);
            Value rows;
            if (sampled) {
              rows = g.list({0, 3, 4, 7, 12, 20, 21, 22, 30, 36, -1, -1}, DType::i32);
            }
            const Value target = ops::target_cosine(features, labels, weight, c);
            const auto stats =
                ops::class_center_forward(features, n.norms, labels, weight, target, rows, c);
            const auto loss =
                ops::margin_loss(ops::reshape(stats.stats, {1, batch, 2}), n.norms, target, c);
            if (terms) ops::margin_term_gradient(target, n.norms, loss.log_sum, c);
            const auto earlier = ops::class_center_backward(features, n.norms, labels, weight,
                                                            target, loss.log_sum, stats, rows, c);
            ops::class_center_backward(features, n.norms, labels, weight, target, loss.log_sum,
                                       stats, rows, c, earlier.weight);
            ops::RowUpdate update{std::make_shared<MomentumUpdate>(), 1.5, 0.01, all_rows};
            if (adds) update.earlier = earlier.weight;
            if (adds != counts_rows) update.step = g.integer(2);
            if (counts_rows) update.row_steps = g.counts(classes);
            ops::class_center_update(features, n.norms, labels, weight, target, loss.log_sum, stats,
                                     rows, {slot}, g.scalar(0.1), g.scalar(1), c, update);
            return Outputs{};
          }};
}

std::vector<OpCase> elementwise_rows() {
  return {
      {"add",
       [](CaseGraph& g) {
         const Shape s{2, 16, 3, 5};
         return Outputs{ops::add(g.real(s), g.real(s))};
       }},
      {"add of odd length",
       [](CaseGraph& g) {
         return Outputs{ops::add(g.real({3, 7}), g.real({3, 7}))};
       }},
      {"mul",
       [](CaseGraph& g) {
         const Shape s{2, 16, 3, 5};
         return Outputs{ops::mul(g.real(s), g.real(s))};
       }},
      {"scale",
       [](CaseGraph& g) {
         return Outputs{ops::scale(g.real({2, 16, 3, 5}), -1.7)};
       }},
      {"scale_by",
       [](CaseGraph& g) {
         return Outputs{ops::scale_by(g.real({2, 16, 3, 5}), g.real({}))};
       }},
      {"shift",
       [](CaseGraph& g) {
         return Outputs{ops::shift(g.real({2, 16, 3, 5}), -1.7)};
       }},
      {"clamp",
       [](CaseGraph& g) {
         return Outputs{ops::clamp(g.apart({2, 16, 3, 5}), -2, 0), ops::clamp(g.apart({7}), 0, 2)};
       }},
      {"sqrt and reciprocal",
       [](CaseGraph& g) {
         return Outputs{ops::sqrt(g.real({3, 7}, 0.5, 2)), ops::reciprocal(g.real({5}, 0.5, 2)),
                        ops::sqrt(g.real({}, 0.5, 2)), ops::reciprocal(g.real({}, 0.5, 2))};
       }},
      {"scale_rows",
       [](CaseGraph& g) {
         ops::scale_rows(g.fixed({5, 19}), g.fixed({5}));
         ops::scale_rows(g.fixed({6, 16}), g.fixed({6}));
         return Outputs{};
       }},
      {"relu",
       [](CaseGraph& g) {
         return Outputs{ops::relu(g.apart({2, 16, 3, 5}))};
       }},
      {"prelu",
       [](CaseGraph& g) {
         return Outputs{ops::prelu(g.apart({2, 16, 3, 5}), g.real({16}, 0.1, 0.4))};
       }},
      {"prelu of one position",
       [](CaseGraph& g) {
         return Outputs{ops::prelu(g.apart({3, 5}), g.real({5}, 0.1, 0.4))};
       }},
      // Rounding to float makes steps: differences as coarse as that must do.
      {"cast",
       [](CaseGraph& g) {
         const DType other = g.dtype == DType::f32 ? DType::f64 : DType::f32;
         return Outputs{ops::cast(g.real({3, 7}), other)};
       },
       0.125, 1e-5},
      {"casts of small types",
       [](CaseGraph& g) {
         const Value x = g.fixed({3, 7}, 0, 200);
         for (const DType to : {DType::u8, DType::i32, DType::i64, DType::f16, DType::bf16}) {
           ops::cast(ops::cast(x, to), g.dtype);
         }
         return Outputs{};
       }},
      {"dropout",
       [](CaseGraph& g) {
         return Outputs{ops::dropout(g.real({4, 33}), 0.4, g.integer(7), 99, 1000)};
       }},
      {"reshape",
       [](CaseGraph& g) {
         return Outputs{ops::reshape(g.real({2, 16, 3, 5}), {6, 80})};
       }},
  };
}

std::vector<OpCase> product_rows() {
  return {
      conv("3x3", {2, 16, 5, 6}, {32, 16, 3, 3}, {1, 1, 1}),
      conv("3x3 stride 2", {2, 16, 7, 6}, {16, 16, 3, 3}, {2, 1, 1}),
      conv("1x1 stride 2", {2, 16, 5, 5}, {32, 16, 1, 1}, {2, 0, 1}),
      conv("first", {2, 3, 8, 8}, {16, 3, 3, 3}, {1, 1, 1}),
      conv("depthwise", {2, 32, 6, 6}, {32, 1, 3, 3}, {1, 1, 32}),
      conv("depthwise stride 2", {2, 16, 6, 6}, {16, 1, 3, 3}, {2, 1, 16}),
      conv("depthwise whole", {2, 16, 7, 7}, {16, 1, 7, 7}, {1, 0, 16}),
      conv("groups of 2", {2, 32, 5, 5}, {32, 2, 3, 3}, {1, 1, 16}),
      conv("odd channels", {1, 5, 6, 4}, {7, 5, 3, 2}, {1, 2, 1}),
      product("plain", {5, 24}, {24, 17}, false, false),
      product("a transposed", {24, 5}, {24, 17}, true, false),
      product("b transposed", {5, 24}, {17, 24}, false, true),
      product("both transposed", {24, 5}, {17, 24}, true, true),
      {"add_bias",
       [](CaseGraph& g) {
         return Outputs{ops::add_bias(g.real({5, 19}), g.real({19}))};
       }},
  };
}

std::vector<OpCase> reduction_rows() {
  return {
      {"global_average_pool",
       [](CaseGraph& g) {
         return Outputs{ops::global_average_pool(g.real({2, 16, 3, 5}))};
       }},
      {"sum",
       [](CaseGraph& g) {
         return Outputs{ops::sum(g.real({2, 16, 3, 5}))};
       }},
      {"mean",
       [](CaseGraph& g) {
         return Outputs{ops::mean(g.real({3, 7}))};
       }},
      {"sum_rows",
       [](CaseGraph& g) {
         return Outputs{ops::sum_rows(g.real({5, 19}))};
       }},
      {"sum_groups",
       [](CaseGraph& g) {
         ops::sum_groups(g.fixed({3, 19}));
         return Outputs{};
       }},
      {"fill_like",
       [](CaseGraph& g) {
         return Outputs{ops::fill_like(g.real({}), {3, 7})};
       }},
      {"squared_norm",
       [](CaseGraph& g) {
         ops::squared_norm({g.fixed({2, 16, 3, 5}), g.fixed({7}), g.fixed({})});
         return Outputs{};
       }},
  };
}

std::vector<OpCase> normalization_rows() {
  return {
      norm("of images", {4, 16, 3, 5}, 1),
      norm("of images in groups", {4, 32, 3, 2}, 2),
      norm("of odd channels", {3, 5, 4, 4}, 1),
      norm("of vectors", {6, 19}, 1),
      {"batch_norm_fixed",
       [](CaseGraph& g) {
         return Outputs{ops::batch_norm_fixed(g.real({2, 16, 3, 5}), g.fixed({16}),
                                              g.fixed({16}, 0.5, 2), g.real({16}), g.real({16}),
                                              1e-5)};
       }},
      {"moments of ranks",
       [](CaseGraph& g) {
         ops::combine_moments({g.fixed({2, 19}), g.fixed({2, 19}, 0.5, 2)}, 2);
         return Outputs{};
       }},
      {"update_running",
       [](CaseGraph& g) {
         const ops::Moments moments{g.fixed({2, 19}), g.fixed({2, 19}, 0.5, 2)};
         ops::update_running(g.state({19}), g.state({19}, 0.5, 2), moments, g.scalar(1), 0.1, 30);
         return Outputs{};
       }},
      {"update_running of a bad step",
       [](CaseGraph& g) {
         const ops::Moments moments{g.fixed({1, 19}), g.fixed({1, 19}, 0.5, 2)};
         ops::update_running(g.state({19}), g.state({19}, 0.5, 2), moments, g.scalar(0), 0.1, 30);
         return Outputs{};
       }},
      {"normalize",
       [](CaseGraph& g) {
         return Outputs{ops::normalize(g.real({5, 19})).rows};
       }},
      {"normalize and its norms",
       [](CaseGraph& g) {
         const auto [rows, norms] = ops::normalize(g.real({5, 19}));
         return Outputs{rows, norms, ops::normalize(g.real({3, 8})).norms};
       }},
  };
}

std::vector<OpCase> step_rows() {
  return {
      {"image_normalize",
       [](CaseGraph& g) {
         const Value image = g.integers({6, 5, 7, 3}, 0, 255, DType::u8);
         ops::image_normalize(image, g.integer(3), {.flip = 0.5, .seed = 5, .first_sample = 12});
         return Outputs{};
       },
       0,
       0,
       {DType::f32}},
      {"guards",
       [](CaseGraph& g) {
         const Value norm = g.fixed({}, 30, 40);
         ops::clip_coefficient(norm, 5);
         ops::clip_coefficient(norm, 50);
         ops::sqrt(norm);
         ops::constant(g.graph, 0.25);
         ops::all_finite({norm, g.scalar(1)});
         ops::all_finite({norm, g.scalar(INFINITY)});
         ops::all_finite({g.scalar(NAN), norm});
         ops::reciprocal(norm);
         return Outputs{};
       }},
      {"update_loss_scale",
       [](CaseGraph& g) {
         const auto update = [&](double scale, double steps, double ok) {
           ops::update_loss_scale(g.state({}, scale, scale), g.state({}, steps, steps),
                                  g.scalar(ok), {.growth = 2, .backoff = 0.5, .interval = 4});
         };
         for (const double steps : {0, 2, 3}) {
           update(1024, steps, 1);
           update(1024, steps, 0);
         }
         update(0x1p127, 3, 1);
         update(0x1p-126, 3, 0);
         return Outputs{};
       },
       0,
       0,
       {DType::f32}},
      {"optimizer_update",
       [](CaseGraph& g) {
         const auto update = std::make_shared<MomentumUpdate>();
         const Shape s{16, 3, 5};
         ops::optimizer_update(g.state(s), {g.state(s)}, g.fixed(s), g.scalar(0.1), g.scalar(0.5),
                               g.scalar(1), g.integer(6), update, 2, 0.01);
         ops::optimizer_update(g.state(s), {g.state(s)}, g.fixed(s), g.scalar(0.1), {}, g.scalar(1),
                               {}, update, 1, 0);
         ops::optimizer_update(g.state(s), {g.state(s)}, g.fixed(s), g.scalar(0.1), {}, g.scalar(0),
                               {}, update, 1, 0.01);
         return Outputs{};
       }},
      {"optimizer_update of many",
       [](CaseGraph& g) {
         const auto tensor = [&](const Shape& s) {
           return TensorUpdate{g.state(s), g.fixed(s), {g.state(s)}};
         };
         for (const double ok : {1, 0}) {
           optimizer_update_many({tensor({16, 3, 5}), tensor({7}), tensor({130, 130})},
                                 g.scalar(0.1), g.scalar(0.5), g.scalar(ok), g.integer(6),
                                 std::make_shared<MomentumUpdate>(), 2, 0.01);
         }
         optimizer_update_many({tensor({3})}, g.scalar(0.1), {}, g.scalar(1), {},
                               std::make_shared<MomentumUpdate>(), 2, 0);
         return Outputs{};
       }},
      class_centers("whole", true, true, false, false),
      class_centers("with a margin on all", false, true, false, false),
      class_centers("of raw products", true, false, false, false),
      class_centers("sampled", true, true, true, false),
      class_centers("sampled, all updated", false, true, true, true),
      class_centers("with kept cosines", true, true, false, false, true),
      class_centers("sampled, with kept cosines", false, true, true, false, true),
      class_centers("on top of earlier ones", true, true, false, false, true, true),
      class_centers("sampled, on top of earlier ones", true, true, true, true, false, true),
      class_centers("with terms", true, true, false, false, false, false, false, true),
      class_centers("sampled, with terms", false, true, true, false, true, false, false, true),
      {"concat_rows",
       [](CaseGraph& g) {
         ops::concat_rows({g.fixed({7, 3, 5}), g.fixed({1, 3, 5}), g.fixed({2, 3, 5})});
         ops::concat_rows({g.integers({9}, -5, 5), g.integers({3}, -5, 5)});
         return Outputs{};
       }},
      {"assign",
       [](CaseGraph& g) {
         ops::assign(g.state({}), g.fixed({}), g.scalar(1));
         ops::assign(g.state({7, 5}), g.fixed({7, 5}), g.scalar(1));
         ops::assign(g.state({7, 5}), g.fixed({7, 5}), g.scalar(0));
         return Outputs{};
       }},
      class_centers("whole, counted by rows", true, true, false, false, false, false, true),
      class_centers("sampled, counted by rows", true, true, true, false, false, true, true),
      class_centers("all updated, counted by rows", false, true, true, true, false, false, true),
      {"slice_rows",
       [](CaseGraph& g) {
         ops::slice_rows(g.fixed({7, 3, 5}), 2, 3);
         ops::slice_rows(g.integers({9}, -5, 5), 4, 5);
         return Outputs{};
       }},
      {"sample_classes",
       [](CaseGraph& g) {
         const Value labels = g.integers({8}, 0, 99);
         ops::sample_classes(labels, g.integer(4), {20, 50, 40, 0.3, 77});
         return Outputs{};
       }},
  };
}

}  // namespace

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> rows = [] {
    std::vector<OpCase> all;
    for (const auto& part : {elementwise_rows(), product_rows(), reduction_rows(),
                             normalization_rows(), fused_op_cases(), step_rows()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return rows;
}

namespace {

// Every op that a row's graphs hold.
std::map<std::string_view, const OpDef*> tabled_ops() {
  std::map<std::string_view, const OpDef*> found;
  for (const OpCase& row : op_cases()) {
    const BuiltCase built(row, DType::f32);
    for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
      const OpDef* op = built.leaves.graph.node(i).op;
      found.emplace(op->name, op);
    }
  }
  return found;
}

TEST(OpTable, HoldsEveryOpThatHasAKernel) {
  // Where ranks meet, or only the order in memory changes, a row of one rank's values says nothing.
  const std::set<std::string_view> elsewhere{"all_reduce", "all_gather", "reduce_scatter",
                                             "broadcast", "reorder"};
  KernelList list;
  add_reference_kernels(list);
  add_simd_kernels(list);
  add_onednn_kernels(list);
  add_class_center_kernels(list);
  const auto tabled = tabled_ops();
  for (const KernelDef& def : list.all()) {
    if (elsewhere.contains(def.op)) continue;
    EXPECT_TRUE(tabled.contains(def.op)) << def.op << " (" << def.name << ") has no row";
  }
}

TEST(OpTable, EveryOpHasAnOracle) {
  for (const auto& [name, op] : tabled_ops()) {
    if (op->leaf || op->collective != Collective::none || op->decomposition) continue;
    const auto defs = oracle_kernels().of(name);
    ASSERT_FALSE(defs.empty()) << name;
    EXPECT_EQ(defs.back()->name, "plain") << name;
    EXPECT_EQ(defs.back()->priority, 0) << name;
  }
}

TEST(OpTable, PlainKernelsRefuseOtherLayouts) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {1, 8, 2, 2}, "aBcd8b"});
  const Value y = ops::relu(x);
  const KernelDef& def = *oracle_kernels().of("relu").back();
  EXPECT_THAT(def.refuse(y.node(), {}), testing::HasSubstr("row-major"));
  EXPECT_EQ(def.refuse(ops::relu(graph.input("z", {DType::f32, {3}})).node(), {}), "");
  EXPECT_EQ(def.refuse(ops::relu(graph.input("h", {DType::f16, {3}})).node(), {}), "");
}

}  // namespace
}  // namespace ftrain::cpu
