// Class centers in bf16: products as in f32, updates rounded stochastically by the global row.
#include "tests/plugins/devices/cpu/stored_centers.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "ftrain/model/optimizer.h"
#include "ftrain/ops/random.h"
#include "plugins/devices/cpu/device/device.h"
#include "plugins/devices/cpu/device/kernels.h"
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

class PlainStep final : public Update {
 public:
  PlainStep() {
    f32 = [](const void*, float* parameter, float* const*, const float* gradient,
             std::int64_t count, const UpdateScalars& s) {
      for (std::int64_t i = 0; i < count; ++i) {
        parameter[i] -= float(s.rate) * (gradient[i] + float(s.decay) * parameter[i]);
      }
    };
  }
  std::string text() const override { return "plain step"; }
};

std::shared_ptr<const Payload> update_of(const StoredCase& c) {
  if (!c.slots) return std::make_shared<PlainStep>();
  return std::make_shared<MomentumUpdate>();
}

TEST(StoredCenters, InBf16AreF32ButForTheRounding) {
  for (const StoredCase& c : stored_cases()) {
    for (const bool plain_others : {true, false}) {
      const auto margin = std::make_shared<TestMargin>(plain_others, true);
      expect_rounded_f32(c, kernels(), {.threads = 1, .isa = {}}, "plain", margin, update_of(c));
      expect_rounded_f32(c, kernels(), {.threads = 2, .isa = best_isa()}, "", margin, update_of(c));
    }
  }
}

// Once in a step, whatever is sampled, and not where the step is skipped.
TEST(StoredCenters, CountTheUpdatesOfEachRow) {
  for (const auto& [only, isa] : {std::pair{"plain", std::string()}, {"", best_isa()}}) {
    for (StoredCase c : stored_cases()) {
      if (!c.counted) continue;
      SCOPED_TRACE(c.text() + " " + only + (c.ok != 0 ? "" : " skipped"));
      const auto margin = std::make_shared<TestMargin>(true, true);
      const auto run = [&] {
        return run_stored(c, kernels(), {.threads = 2, .isa = isa}, only, margin, update_of(c));
      };
      const StoredResults counted = run();
      c.counted = false;
      const StoredResults by_step = run();
      for (std::int64_t row = 0, chosen = 0; row < c.classes; ++row) {
        const bool drawn = row == chosen;
        if (drawn) chosen += 1 + row % 3;
        const bool moves = c.ok != 0 && (drawn || !c.sampled || c.all_rows);
        const auto at = static_cast<std::size_t>(row);
        EXPECT_EQ(counted.at("steps")[at], static_cast<float>(row % 5 + (moves ? 1 : 0))) << row;
        // The step's number divides the rate by 4, and so does that of every fifth row.
        const auto first = static_cast<std::size_t>(row * c.width);
        const bool same = counted.at("weight")[first] == by_step.at("weight")[first];
        EXPECT_EQ(same, !moves || row % 5 == 3) << row;
      }
    }
  }
}

TEST(StoredCenters, InBf16AreWalkedInTiles) {
  Graph graph;
  const Value features = graph.input("features", {DType::f32, {2, 4}});
  const Value labels = graph.input("labels", {DType::i64, {2}});
  const Value norms = graph.input("norms", {DType::f32, {2}});
  const Value weight = graph.state({.name = "weight", .type = {DType::bf16, {3, 4}}});
  const ops::ClassCenters centers{std::make_shared<TestMargin>(true, true), 0, 1, false};
  const Value target = ops::target_cosine(features, labels, weight, centers);
  const Value stats =
      ops::class_center_forward(features, norms, labels, weight, target, {}, centers).stats;
  const KernelEnvironment environment{.isa = {}};
  EXPECT_EQ(kernels().choose(stats.node(), environment).def->name, "tiled");
}

// The same rows on two ranks, with the same gradient.
TEST(StoredCenters, AreRoundedAlikeOnAnyNumberOfRanks) {
  for (const std::int64_t row : {std::int64_t{0}, std::int64_t{12345}, std::int64_t{99999999}}) {
    for (const std::int64_t column : {0, 9, 511}) {
      const auto at = [&](std::int64_t first, std::int64_t local) {
        return RowRounding::at(7, 3, first + local, 512, column).number(column);
      };
      EXPECT_EQ(at(0, row), at(row, 0));
    }
  }
  EXPECT_NE(RowRounding::at(7, 3, 1, 512, 0).draw.word[0],
            RowRounding::at(7, 3, 0, 512, 0).draw.word[0]);
  EXPECT_NE(RowRounding::at(7, 3, 1, 512, 0).draw.word[0],
            RowRounding::at(7, 4, 1, 512, 0).draw.word[0]);
}

TEST(StochasticRounding, IsRightOnAverage) {
  for (const float x : {1.001f, -0.3333f, 1e-20f, 3.0e5f, -1.0039f}) {
    const std::uint32_t above = std::bit_cast<std::uint32_t>(x) >> 16;
    const float down = to_f32(BF16{static_cast<std::uint16_t>(above)});
    const float up = to_f32(BF16{static_cast<std::uint16_t>(above + 1)});
    double sum = 0;
    constexpr std::int64_t rows = 4000, width = 8;
    for (std::int64_t row = 0; row < rows; ++row) {
      const RowRounding rounding = RowRounding::at(11, row % 7, row, width, 0);
      for (std::int64_t column = 0; column < width; ++column) {
        const float made = to_f32(BF16{bf16_bits(x, rounding.number(column))});
        ASSERT_TRUE(made == down || made == up) << x << " became " << made;
        sum += static_cast<double>(made);
      }
    }
    // Five deviations of the mean; one that rounds to the nearest is off by 40 and more.
    const double step = std::abs(static_cast<double>(up) - static_cast<double>(down));
    const double mean = sum / static_cast<double>(rows * width);
    EXPECT_NEAR(mean, static_cast<double>(x), 5 * 0.5 * step / std::sqrt(rows * width));
  }
}

TEST(StochasticRounding, KeepsWhatBf16Has) {
  for (const float x : {0.0f, 1.0f, -2.5f, std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity()}) {
    for (const std::uint32_t number : {0u, 1u, 0x8000u, 0xffffu}) {
      EXPECT_EQ(to_f32(BF16{bf16_bits(x, number)}), x);
    }
  }
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xffffffffu}) {
    for (const std::uint32_t number : {0u, 0xffffu}) {
      EXPECT_TRUE(std::isnan(to_f32(BF16{bf16_bits(std::bit_cast<float>(bits), number)})));
    }
  }
}

// Each is a hundredth of what bf16 resolves at 1, so rounded to the nearest nothing would move.
TEST(StochasticRounding, LosesNoSmallUpdates) {
  double sum = 0;
  constexpr std::int64_t rows = 64, steps = 1000;
  const float update = 0.01f / 128;
  for (std::int64_t row = 0; row < rows; ++row) {
    BF16 x = to_bf16(1.0f);
    for (std::int64_t step = 0; step < steps; ++step) {
      const RowRounding rounding = RowRounding::at(5, step, row, 1, 0);
      x = {bf16_bits(to_f32(x) + update, rounding.number(0))};
    }
    sum += static_cast<double>(to_f32(x)) - 1;
  }
  const double moved = steps * static_cast<double>(update);
  EXPECT_NEAR(sum / rows, moved, 0.15 * moved);
}

}  // namespace
}  // namespace ftrain::cpu
