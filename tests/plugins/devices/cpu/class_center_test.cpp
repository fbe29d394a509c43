// The tiled walks over class centers and the sampling against the plain loops: batches and widths
// that fill no vector, many tiles, threads, instruction sets, kept cosines or not.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ftrain/device/device.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/device.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/graph_runner.h"
#include "tests/plugins/devices/cpu/case_payloads.h"

namespace ftrain::cpu {
namespace {

const KernelList& kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_reference_kernels(made);
    add_class_center_kernels(made);
    return made;
  }();
  return list;
}

struct WalkCase {
  std::int64_t batch, width, classes;
  bool plain_others = true, normalized = true, sampled = false, all_rows = false, keep = false;
  bool earlier = false;  // the update adds to earlier parts' gradient
};

// What both walks give, with kernels of one name or the best.
std::vector<std::vector<float>> walk(const WalkCase& c, const KernelEnvironment& environment,
                                     const std::string& only) {
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
  const ops::ClassCenters centers{std::make_shared<TestMargin>(c.plain_others, c.normalized), first,
                                  1.0 / static_cast<double>(c.batch), c.keep};
  const Value target = ops::target_cosine(features, labels, weight, centers);
  const ops::ClassStats stats =
      ops::class_center_forward(features, norms, labels, weight, target, rows, centers);
  const ops::MarginLoss loss =
      ops::margin_loss(ops::reshape(stats.stats, {1, c.batch, 2}), norms, target, centers);
  const ops::ClassGradients dense = ops::class_center_backward(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, centers);
  // The same once more on top of it, and again in the update.
  const ops::ClassGradients more = ops::class_center_backward(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, centers, dense.weight);
  const Value updated = ops::class_center_update(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, {slot}, rate, ok, centers,
      {std::make_shared<MomentumUpdate>(), 1.5, 0.01, c.all_rows,
       c.earlier ? more.weight : Value()});

  GraphRunner runner(graph, kernels(), environment, only);
  const auto count = [](std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); };
  std::vector<float> unit = random_values(count(c.batch, c.width), 1);
  for (std::int64_t b = 0; b < c.batch; ++b) {
    double sum = 0;
    for (std::int64_t d = 0; d < c.width; ++d) {
      const double x = static_cast<double>(unit[count(b, c.width) + static_cast<std::size_t>(d)]);
      sum += x * x;
    }
    for (std::int64_t d = 0; d < c.width; ++d) {
      unit[count(b, c.width) + static_cast<std::size_t>(d)] /= static_cast<float>(std::sqrt(sum));
    }
  }
  runner.set(features, unit);
  runner.set(norms, random_values(static_cast<std::size_t>(c.batch), 2, 10, 1));
  std::vector<std::int64_t> own;
  for (std::int64_t b = 0; b < c.batch; ++b) own.push_back(first + b * b % c.classes);
  own[0] = first - 1;  // another rank's
  runner.set_bytes(labels, own.data());
  runner.set(weight, random_values(count(c.classes, c.width), 3, 0, 0.3f));
  runner.set(slot, random_values(count(c.classes, c.width), 4, 0, 0.01f));
  runner.set(rate, {0.1f});
  runner.set(ok, {1.0f});
  if (c.sampled) runner.set_bytes(rows, chosen.data());
  runner.run();
  std::vector<std::vector<float>> made;
  for (const Value v : {target, stats.stats, stats.inverse_norms, loss.loss, dense.features,
                        dense.weight, more.features, more.weight, updated, weight, slot}) {
    made.push_back(runner.get(v));
  }
  if (c.keep) made.push_back(runner.get(stats.cosines));
  return made;
}

void expect_like_plain(const WalkCase& c, const std::string& isa, int threads) {
  SCOPED_TRACE("batch " + std::to_string(c.batch) + " width " + std::to_string(c.width) +
               " classes " + std::to_string(c.classes) + (c.plain_others ? "" : " others") +
               (c.normalized ? "" : " raw") + (c.sampled ? " sampled" : "") +
               (c.keep ? " kept" : "") + (c.earlier ? " earlier" : "") + " " + isa + " threads " +
               std::to_string(threads));
  const auto want = walk(c, KernelEnvironment{.threads = 1, .isa = {}}, "plain");
  const auto got = walk(c, {.threads = threads, .isa = isa}, "");
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT(relative_difference(got[i], want[i]), 2e-4) << "result " << i;
  }
}

class ClassCenterWalks : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string best = best_isa();
    if (GetParam() == "avx512" && best != "avx512") GTEST_SKIP() << "no AVX-512 here";
    if (GetParam() == "avx2" && best == "plain") GTEST_SKIP() << "no AVX2 here";
  }
};
INSTANTIATE_TEST_SUITE_P(Isas, ClassCenterWalks, testing::Values("plain", "avx2", "avx512"));

TEST_P(ClassCenterWalks, GiveWhatPlainLoopsGive) {
  for (const std::int64_t batch : {1, 16, 37, 64, 130}) {
    for (const bool keep : {false, true}) {
      expect_like_plain({batch, 37, 301, true, true, false, false, keep}, GetParam(), 2);
    }
  }
}

TEST_P(ClassCenterWalks, ForEveryKindOfMargin) {
  for (const bool keep : {false, true}) {
    for (const int threads : {1, 2, 3}) {
      expect_like_plain({21, 50, 307, false, true, false, false, keep}, GetParam(), threads);
      expect_like_plain({21, 50, 307, true, false, false, false, keep}, GetParam(), threads);
      expect_like_plain({21, 50, 307, false, false, true, false, keep}, GetParam(), threads);
    }
  }
}

TEST_P(ClassCenterWalks, OnASample) {
  for (const bool keep : {false, true}) {
    for (const bool all_rows : {false, true}) {
      expect_like_plain({21, 64, 900, true, true, true, all_rows, keep}, GetParam(), 2);
    }
  }
}

TEST_P(ClassCenterWalks, AddToEarlierGradients) {
  for (const std::int64_t width : {37, 64}) {
    expect_like_plain({21, width, 301, true, true, false, false, true, true}, GetParam(), 2);
    expect_like_plain({21, width, 301, false, true, true, false, false, true}, GetParam(), 3);
    expect_like_plain({21, width, 301, true, true, true, true, true, true}, GetParam(), 2);
  }
}

TEST_P(ClassCenterWalks, WithMoreSamplesThanTheCacheHolds) {
  for (const bool keep : {false, true}) {
    expect_like_plain({260, 260, 130, true, true, false, false, keep}, GetParam(), 2);
  }
}

TEST_P(ClassCenterWalks, WithFewerClassesThanABlock) {
  for (const std::int64_t classes : {1, 5, 7}) {
    expect_like_plain({9, 16, classes}, GetParam(), 2);
  }
}

// The rows that `only` (a kernel's name, or the best) draws.
std::vector<std::int32_t> sample(const ops::SampleClasses& s, std::int64_t step,
                                 const std::vector<std::int64_t>& own, const std::string& isa,
                                 const std::string& only, int threads) {
  Graph graph;
  const Value labels = graph.input("labels", {DType::i64, {static_cast<std::int64_t>(own.size())}});
  const Value number = graph.input("step", {DType::i64, {}});
  const Value rows = ops::sample_classes(labels, number, s);
  const KernelEnvironment environment{.threads = threads, .isa = isa};
  const auto kernel =
      kernels().choose(rows.node(), environment, only).def->make(rows.node(), environment);
  std::vector<std::int32_t> made(static_cast<std::size_t>(s.capacity), -7);
  GuardedBuffer scratch(kernel->scratch_bytes());
  void* inputs[] = {const_cast<std::int64_t*>(own.data()), &step};
  void* outputs[] = {made.data()};
  kernel->bind(inputs, outputs, scratch.data());
  kernel->launch();
  EXPECT_TRUE(scratch.intact());
  return made;
}

TEST_P(ClassCenterWalks, SampleWhatPlainLoopsSample) {
  const std::vector<std::int64_t> own{5, 70, 70, 64, 3, 1000, 8191, 1 << 20};
  for (const std::int64_t first : {0, 3, 6, 64}) {
    for (const std::int64_t classes : {1, 59, 64, 5000}) {
      for (const double rate : {0.0, 0.1, 0.77}) {
        // Enough room, hardly any, and less than the batch itself wants.
        for (const std::int64_t capacity : {classes, std::int64_t{20}, std::int64_t{2}}) {
          for (const std::int64_t step : {std::int64_t{0}, std::int64_t{1} << 33}) {
            const ops::SampleClasses s{first, classes, capacity, rate, 2048};
            EXPECT_EQ(sample(s, step, own, GetParam(), "simd", 2),
                      sample(s, step, own, GetParam(), "plain", 1))
                << first << " " << classes << " " << rate << " " << capacity << " " << step;
          }
        }
      }
    }
  }
}

TEST(ClassCenterWalk, RepeatsToTheBit) {
  const WalkCase c{37, 50, 700, true, true, false, false, true};
  EXPECT_EQ(walk(c, KernelEnvironment{.threads = 2, .isa = {}}, ""),
            walk(c, KernelEnvironment{.threads = 2, .isa = {}}, ""));
}

}  // namespace
}  // namespace ftrain::cpu
