// The class-center step on the stand-in for a GPU, with every head's own device code and the
// optimizer's, against the CPU's plain loops: all rows, sampled rows, all rows beside a sample;
// tiles that are not full, ranks without classes.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "ftrain/head/margin_cpu.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/ops.h"
#include "ftrain/optimizer/device_update.h"
#include "heads/combined.h"
#include "heads/softmax.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/optimizers/sgd.h"
#include "tests/plugins/devices/cpu/graph_runner.h"

namespace ftrain::cuda {
namespace {

using cpu::GraphRunner;
using cpu::GuardedBuffer;
using cpu::random_values;

// What is not a class-center op is done by the CPU's plain kernels.
const KernelList& kernels() {
  static const KernelList list = [] {
    KernelList made;
    cpu::add_reference_kernels(made);
    cpu::add_plain_class_center_kernels(made);
    add_class_center_kernels(made);
    return made;
  }();
  return list;
}

// Tiles of 64 rows.
constexpr Context small_tiles{{.multiprocessors = 4}, nullptr, 1};
constexpr Context one_tile{{.multiprocessors = 132}};

struct HeadKeys final : MarginHead {
  std::shared_ptr<const Margin> margin() const override { return nullptr; }
};

template <class Functor>
std::shared_ptr<const Margin> made(const char* name, Functor functor, double scale,
                                   const char* gradient = "exact",
                                   std::optional<double> filter = {}) {
  HeadKeys keys;
  keys.scale = scale;
  keys.gradient = gradient;
  keys.filter = filter;
  auto margin = std::make_shared<HostMargin<Functor>>(name, functor, keys);
  margin->cuda = device_margin<Functor>();
  return margin;
}

struct Head {
  std::string name;
  std::shared_ptr<const Margin> (*margin)();
};
std::ostream& operator<<(std::ostream& out, const Head& head) {
  return out << head.name;
}
const Head heads[] = {
    {"softmax", [] { return made("softmax", Softmax<false>{}, 1); }},
    {"normalized_softmax", [] { return made("normalized_softmax", Softmax<true>{}, 16); }},
    {"arcface",
     [] {
       return made("arcface", Combined{1, 0.5f, 0}, 32);
     }},
    {"cosface",
     [] {
       return made("cosface", Combined{1, 0, 0.4f}, 64);
     }},
    {"combined",
     [] {
       return made("combined", Combined{1.1f, 0.3f, 0.2f}, 16);
     }},
    {"straight",
     [] {
       return made("arcface", Combined{1, 0.5f, 0}, 32, "straight_through");
     }},
    {"filtered",
     [] {
       return made("arcface", Combined{1, 0.5f, 0}, 16, "exact", 0.1);
     }},
};

class SgdUpdate final : public Update {
 public:
  SgdUpdate() {
    functor = &formula_;
    f32 = [](const void* formula, float* parameter, float* const* slots, const float* gradient,
             std::int64_t count, const UpdateScalars& s) {
      const auto step = static_cast<const Sgd*>(formula)->prepare<float>(s);
      for (std::int64_t i = 0; i < count; ++i) step(parameter[i], slots[0][i], gradient[i]);
    };
    cuda = device_update<Sgd>();
  }
  std::string text() const override { return "sgd"; }

 private:
  Sgd formula_{0.9f, true};
};

struct WalkCase {
  std::int64_t batch = 21, width = 37, classes = 301;
  bool sampled = false, all_rows = false, keep = false, earlier = false;
  float ok = 1;
};

struct Named {
  const char* name;
  std::vector<float> values;
  bool operator==(const Named& other) const { return values == other.values; }
};

std::vector<float> unit_rows(std::int64_t rows, std::int64_t width) {
  const auto d = static_cast<std::size_t>(width);
  std::vector<float> values = random_values(static_cast<std::size_t>(rows) * d, 1);
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
    double sum = 0;
    for (std::size_t i = r * d; i < (r + 1) * d; ++i) sum += double(values[i]) * double(values[i]);
    for (std::size_t i = r * d; i < (r + 1) * d; ++i) values[i] /= float(std::sqrt(sum));
  }
  return values;
}

// What both walks give, with kernels of one name or the best.
std::vector<Named> walk(const WalkCase& c, std::shared_ptr<const Margin> margin,
                        const Context& context, const std::string& only, bool in_place = false) {
  Graph graph;
  const Value features = graph.input("features", {DType::f32, {c.batch, c.width}});
  const Value norms = graph.input("norms", {DType::f32, {c.batch}});
  const Value labels = graph.input("labels", {DType::i64, {c.batch}});
  const Value weight = graph.state({.name = "weight", .type = {DType::f32, {c.classes, c.width}}});
  const Value slot = graph.state({.name = "slot", .type = {DType::f32, {c.classes, c.width}}});
  const Value rate = graph.input("rate", {DType::f32, {}});
  const Value ok = graph.input("ok", {DType::f32, {}});
  std::vector<std::int32_t> chosen;
  for (std::int64_t row = 0; row < c.classes; row += 1 + row % 3) {
    chosen.push_back(static_cast<std::int32_t>(row));
  }
  chosen.insert(chosen.end(), 5, -1);
  Value rows;
  if (c.sampled) {
    rows = graph.input("rows", {DType::i32, {static_cast<std::int64_t>(chosen.size())}});
  }
  constexpr std::int64_t first = 3;
  const ops::ClassCenters centers{std::move(margin), first, 1.0 / static_cast<double>(c.batch),
                                  c.keep};
  const Value target = ops::target_cosine(features, labels, weight, centers);
  const ops::ClassStats stats =
      ops::class_center_forward(features, norms, labels, weight, target, rows, centers);
  // Beside a rank that has no class of this step.
  const Value all = graph.input("all", {DType::f32, {2, c.batch, 2}});
  const ops::MarginLoss two = ops::margin_loss(all, norms, target, centers);
  const ops::MarginLoss loss =
      ops::margin_loss(ops::reshape(stats.stats, {1, c.batch, 2}), norms, target, centers);
  const ops::ClassGradients one = ops::class_center_backward(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, centers);
  // The same once more on top of it, and again in the update.
  const ops::ClassGradients more = ops::class_center_backward(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, centers, one.weight);
  const Value updated = ops::class_center_update(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, {slot}, rate, ok, centers,
      {std::make_shared<SgdUpdate>(), 1.5, 0.01, c.all_rows, c.earlier ? more.weight : Value()});

  const KernelEnvironment environment{.isa = {}, .device = &context};
  GraphRunner runner(graph, kernels(), environment, only);
  const auto count = static_cast<std::size_t>(c.classes * c.width);
  const auto samples = static_cast<std::size_t>(c.batch);
  runner.set(features, unit_rows(c.batch, c.width));
  runner.set(norms, random_values(samples, 2, 10, 1));
  std::vector<std::int64_t> own;
  for (std::int64_t b = 0; b < c.batch; ++b) {
    own.push_back(first + (c.classes > 0 ? b * b % c.classes : 0));
  }
  if (c.batch > 0) own[0] = first - 1;  // another rank's
  runner.set_bytes(labels, own.data());
  runner.set(weight, random_values(count, 3, 0, 0.3f));
  runner.set(slot, random_values(count, 4, 0, 0.01f));
  runner.set(rate, {0.1f});
  runner.set(ok, {c.ok});
  std::vector<float> pairs;
  for (std::size_t b = 0; b < samples; ++b) pairs.insert(pairs.end(), {float(b), 2.5f});
  for (std::size_t b = 0; b < samples; ++b) pairs.insert(pairs.end(), {-INFINITY, 0.0f});
  runner.set(all, pairs);
  if (c.sampled) runner.set_bytes(rows, chosen.data());
  runner.run(in_place);
  if (only.empty()) {
    EXPECT_EQ(runner.ran["target_cosine/cuda"], 1);
    EXPECT_EQ(runner.ran["class_center_forward/cuda"], 1);
    EXPECT_EQ(runner.ran["margin_loss/cuda"], 2);
    EXPECT_EQ(runner.ran["class_center_backward/cuda"], 2);
    EXPECT_EQ(runner.ran["class_center_update/cuda"], 1);
  }
  std::vector<Named> results;
  const auto take = [&](const char* name, Value v) { results.push_back({name, runner.get(v)}); };
  take("target", target);
  take("stats", stats.stats);
  take("inverse", stats.inverse_norms);
  if (c.keep) take("cosines", stats.cosines);
  take("loss", loss.loss);
  take("log sums", loss.log_sum);
  take("loss of two ranks", two.loss);
  take("dfeatures", one.features);
  if (!in_place) take("dweight", one.weight);
  take("dweight twice", more.weight);
  take("dfeatures of the update", updated);
  take("weight", weight);
  take("slot", slot);
  return results;
}

// The largest difference in units of the largest element.
double difference(const std::vector<float>& got, const std::vector<float>& want) {
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (got[i] == want[i]) continue;  // infinities
    const double apart = std::abs(double(got[i]) - double(want[i]));
    if (!(apart <= worst)) worst = apart;
    largest = std::max(largest, std::abs(double(want[i])));
  }
  return worst / largest;
}

void expect_like_plain(const WalkCase& c, const Head& head, const Context& context = small_tiles,
                       bool in_place = false) {
  SCOPED_TRACE(head.name + " batch " + std::to_string(c.batch) + " width " +
               std::to_string(c.width) + " classes " + std::to_string(c.classes) +
               (c.sampled ? " sampled" : "") + (c.all_rows ? " all rows" : "") +
               (c.keep ? " kept" : "") + (c.earlier ? " earlier" : ""));
  const auto want = walk(c, head.margin(), context, "plain");
  const auto got = walk(c, head.margin(), context, "", in_place);
  for (const Named& result : got) {
    for (const Named& expected : want) {
      if (result.name != std::string_view(expected.name)) continue;
      ASSERT_EQ(result.values.size(), expected.values.size()) << result.name;
      EXPECT_LT(difference(result.values, expected.values), 1e-5) << result.name;
    }
  }
}

class CudaClassCenters : public testing::TestWithParam<Head> {};
INSTANTIATE_TEST_SUITE_P(Heads, CudaClassCenters, testing::ValuesIn(heads),
                         [](const auto& info) { return info.param.name; });

TEST_P(CudaClassCenters, OfAllRows) {
  for (const bool keep : {false, true}) expect_like_plain({.keep = keep}, GetParam());
}

TEST_P(CudaClassCenters, OfASample) {
  for (const bool keep : {false, true}) {
    expect_like_plain({.sampled = true, .keep = keep}, GetParam());
  }
}

TEST_P(CudaClassCenters, OfAllRowsBesideASample) {
  expect_like_plain({.sampled = true, .all_rows = true}, GetParam());
}

TEST_P(CudaClassCenters, OnEarlierGradients) {
  expect_like_plain({.earlier = true}, GetParam());
  expect_like_plain({.sampled = true, .all_rows = true, .keep = true, .earlier = true}, GetParam());
}

TEST(CudaClassCenter, WritesAGradientOverTheEarlierOne) {
  expect_like_plain({}, heads[2], small_tiles, true);
  expect_like_plain({.sampled = true}, heads[2], small_tiles, true);
}

TEST(CudaClassCenter, OfUnevenSizes) {
  for (const std::int64_t classes : {0, 1, 63, 64, 65}) {
    for (const std::int64_t batch : {1, 33, 65}) {
      expect_like_plain({.batch = batch, .width = 20, .classes = classes}, heads[2]);
    }
  }
  expect_like_plain({.batch = 130, .width = 70, .classes = 200}, heads[4], one_tile);
  expect_like_plain({.batch = 8, .width = 16, .classes = 600, .sampled = true}, heads[4], one_tile);
}

TEST(CudaClassCenter, ChangesNothingWhereTheStepIsNotOk) {
  expect_like_plain({.sampled = true, .all_rows = true, .ok = 0}, heads[3]);
}

TEST(CudaClassCenter, RepeatsToTheBit) {
  const WalkCase c{.batch = 37, .classes = 150, .keep = true};
  EXPECT_EQ(walk(c, heads[2].margin(), small_tiles, ""),
            walk(c, heads[2].margin(), small_tiles, ""));
}

TEST(CudaClassCenter, IsRefusedWithoutDeviceCode) {
  Graph graph;
  const Value features = graph.input("features", {DType::f32, {2, 4}});
  const Value labels = graph.input("labels", {DType::i64, {2}});
  const Value weight = graph.state({.name = "weight", .type = {DType::f32, {3, 4}}});
  const Value norms = graph.input("norms", {DType::f32, {2}});
  const auto bare =
      std::make_shared<HostMargin<Combined>>("arcface", Combined{1, 0.5f, 0}, HeadKeys());
  bare->cuda = nullptr;
  const ops::ClassCenters centers{bare, 0, 1, false};
  const Value target = ops::target_cosine(features, labels, weight, centers);
  const Value stats =
      ops::class_center_forward(features, norms, labels, weight, target, {}, centers).stats;
  const KernelEnvironment environment{.isa = {}, .device = &small_tiles};
  const KernelChoice choice = kernels().choose(stats.node(), environment);
  EXPECT_EQ(choice.def->name, "plain");
  ASSERT_EQ(choice.refused.size(), 1u);
  EXPECT_EQ(choice.refused[0].second,
            "the head arcface has no device code: its plugin was built without nvcc");
}

std::vector<std::int32_t> sample(const ops::SampleClasses& s, std::int64_t step,
                                 std::vector<std::int64_t> own, const std::string& only) {
  Graph graph;
  const Value labels = graph.input("labels", {DType::i64, {static_cast<std::int64_t>(own.size())}});
  const Value number = graph.input("step", {DType::i64, {}});
  const Value rows = ops::sample_classes(labels, number, s);
  const KernelEnvironment environment{.isa = {}, .device = &small_tiles};
  const auto kernel =
      kernels().choose(rows.node(), environment, only).def->make(rows.node(), environment);
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(s.capacity), -7);
  GuardedBuffer scratch(kernel->scratch_bytes());
  void* inputs[] = {own.data(), &step};
  void* outputs[] = {chosen.data()};
  kernel->bind(inputs, outputs, scratch.data());
  kernel->launch();
  EXPECT_TRUE(scratch.intact());
  return chosen;
}

TEST(CudaSampling, SamplesWhatPlainLoopsSample) {
  const std::vector<std::int64_t> own{5, 70, 70, 64, 3, 1000, 8191, 1 << 20};
  for (const std::int64_t first : {0, 3, 6, 99999997}) {
    for (const std::int64_t classes : {0, 1, 59, 64, 9000}) {
      for (const double rate : {0.0, 0.1, 0.77}) {
        // Enough room, hardly any, and less than the batch itself wants.
        for (const std::int64_t capacity : {classes, std::int64_t{20}, std::int64_t{2}}) {
          for (const std::int64_t step : {std::int64_t{0}, std::int64_t{1} << 33}) {
            const ops::SampleClasses s{first, classes, capacity, rate, 2048};
            EXPECT_EQ(sample(s, step, own, "cuda"), sample(s, step, own, "plain"))
                << first << " " << classes << " " << rate << " " << capacity << " " << step;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace ftrain::cuda
