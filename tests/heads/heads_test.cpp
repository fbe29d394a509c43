// Every head: known values, slopes against finite differences in double, the choice of gradient,
// the filter, and the corners where heads meet.
#include <dlfcn.h>
#include <gmock/gmock.h>

#include <cmath>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/model/device_functions.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

std::shared_ptr<const Margin> margin(const std::string& plugin, const std::string& keys = "") {
  static Registry registry({FTRAIN_PLUGINS});
  const auto head =
      registry.create<MarginHead>(Job::parse("[head]\nplugin = \"" + plugin + "\"\n" + keys));
  return head->margin();
}

template <class T = double>
Dual<T> target(const Margin& m, T cosine) {
  return m.functions<T>().target(m.functor, {cosine, T(20)});
}

// The logit of another class, as the class-center walk makes it.
Dual<double> other(const Margin& m, double cosine) {
  const MarginRow<double> row{0.3, 20};
  if (m.f64.others == nullptr) {
    if (!m.normalized) return {m.scale * cosine, m.scale};
    const bool inside = std::abs(cosine) <= 1;
    return {m.scale * std::clamp(cosine, -1.0, 1.0), inside ? m.scale : 0};
  }
  double slope = 0;
  m.f64.others(m.functor, {1, 1, 1, &cosine, &slope, &row});
  return {cosine, slope};
}

struct Case {
  const char* plugin;
  const char* keys;
};

class Heads : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, Heads,
                         testing::Values(Case{"softmax", ""}, Case{"softmax", "scale = 3"},
                                         Case{"normalized_softmax", "scale = 30"},
                                         Case{"arcface", ""}, Case{"arcface", "margin = 0.3"},
                                         Case{"cosface", ""},
                                         Case{"cosface", "margin = 0.1\nscale = 24"},
                                         Case{"combined", "m1 = 1.1\nm2 = 0.3\nm3 = 0.2"},
                                         Case{"combined", "m1 = 1.35\nm3 = 0.1"},
                                         Case{"combined", "m1 = 0.9\nm2 = 0.5"},
                                         Case{"arcface", "interclass_filtering_threshold = 0.25"}));

TEST_P(Heads, SlopesAreThoseOfTheValues) {
  const auto m = margin(GetParam().plugin, GetParam().keys);
  const double h = 1e-6;
  for (double c = -0.99; c < 0.995; c += 0.045) {
    const double of_target = (target(*m, c + h).value - target(*m, c - h).value) / (2 * h);
    EXPECT_NEAR(target(*m, c).slope, of_target, 1e-6 * std::abs(of_target) + 1e-6) << c;
    const double of_other = (other(*m, c + h).value - other(*m, c - h).value) / (2 * h);
    EXPECT_NEAR(other(*m, c).slope, of_other, 1e-6 * std::abs(of_other) + 1e-6) << c;
  }
}

TEST_P(Heads, FloatFollowsDouble) {
  const auto m = margin(GetParam().plugin, GetParam().keys);
  for (double c = -0.99; c < 0.995; c += 0.045) {
    const Dual<double> d = target(*m, c);
    const Dual<float> f = target(*m, static_cast<float>(c));
    EXPECT_NEAR(static_cast<double>(f.value), d.value, 1e-5 * m->scale) << c;
    EXPECT_NEAR(static_cast<double>(f.slope), d.slope, 1e-4 * m->scale) << c;
  }
}

TEST_P(Heads, StraightThroughChangesSlopesAlone) {
  const std::string keys = GetParam().keys;
  const auto exact = margin(GetParam().plugin, keys);
  const auto straight = margin(GetParam().plugin, keys + "\ngradient = \"straight_through\"");
  for (double c = -0.9; c < 0.95; c += 0.2) {
    EXPECT_EQ(target(*straight, c).value, target(*exact, c).value);
    EXPECT_EQ(target(*straight, c).slope, straight->scale);
    EXPECT_EQ(other(*straight, c).value, other(*exact, c).value);
    EXPECT_EQ(other(*straight, c).slope, other(*exact, c).slope);
  }
}

TEST_P(Heads, StayFiniteAtAndBeyondTheEnds) {
  const auto m = margin(GetParam().plugin, GetParam().keys);
  for (const double c : {-1.0 - 1e-6, -1.0, 1.0, 1.0 + 1e-6}) {
    EXPECT_TRUE(std::isfinite(target(*m, c).value)) << c;
    EXPECT_TRUE(std::isfinite(target(*m, c).slope)) << c;
    EXPECT_TRUE(std::isfinite(target(*m, static_cast<float>(c)).slope)) << c;
    if (!m->normalized || std::abs(c) <= 1) continue;
    EXPECT_EQ(target(*m, c).slope, 0) << c;  // as torch's clamp
    EXPECT_EQ(target(*m, c).value, target(*m, std::clamp(c, -1.0, 1.0)).value);
    EXPECT_EQ(other(*m, c).slope, 0) << c;
  }
}

TEST_P(Heads, CarryDeviceCodeWhereThereIsNvcc) {
  const auto m = margin(GetParam().plugin, GetParam().keys);
#ifdef FTRAIN_CUDA
  ASSERT_NE(m->cuda, nullptr);
  if (dlopen("libcuda.so.1", RTLD_NOW) != nullptr) GTEST_SKIP() << "there is a driver";
  // Loaded all the same; only what is asked of it fails.
  const auto& device = *static_cast<const DeviceMargin*>(m->cuda);
  try {
    device.target(m->functor, nullptr, 1, nullptr, nullptr);
    FAIL() << "ran without a driver";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("driver"));
  }
#else
  EXPECT_EQ(m->cuda, nullptr);
#endif
}

TEST(ArcFace, AddsToTheAngle) {
  const auto m = margin("arcface", "margin = 0.5\nscale = 64");
  const double theta = 1.1;
  EXPECT_NEAR(target(*m, std::cos(theta)).value, 64 * std::cos(theta + 0.5), 1e-10);
  EXPECT_NEAR(target(*m, std::cos(theta)).slope, 64 * std::sin(theta + 0.5) / std::sin(theta),
              1e-9);
  // Beyond pi the cosine turns: no easy margin.
  EXPECT_NEAR(target(*m, std::cos(3.0)).value, 64 * std::cos(3.5), 1e-9);
  EXPECT_EQ(other(*m, 0.25).value, 16);
}

TEST(CosFace, SubtractsFromTheCosine) {
  const auto m = margin("cosface", "margin = 0.375\nscale = 32");
  EXPECT_DOUBLE_EQ(target(*m, 0.5).value, 32 * 0.125);
  EXPECT_DOUBLE_EQ(target(*m, 0.5).slope, 32);
}

TEST(Combined, HonoursAllThreeMarginsTogether) {
  const auto m = margin("combined", "m1 = 1.25\nm2 = 0.25\nm3 = 0.125\nscale = 10");
  const double theta = 0.8;
  EXPECT_NEAR(target(*m, std::cos(theta)).value, 10 * (std::cos(1.25 * theta + 0.25) - 0.125),
              1e-12);
  EXPECT_NEAR(target(*m, std::cos(theta)).slope,
              10 * 1.25 * std::sin(1.25 * theta + 0.25) / std::sin(theta), 1e-11);
}

TEST(Combined, ItsCornersAreTheOtherHeads) {
  const auto arcface = margin("arcface", "margin = 0.5");
  const auto cosface = margin("cosface", "margin = 0.4");
  const auto none = margin("normalized_softmax");
  const auto m2 = margin("combined", "m2 = 0.5");
  const auto m3 = margin("combined", "m3 = 0.4");
  const auto m0 = margin("combined");
  for (double c = -0.95; c < 1; c += 0.1) {
    EXPECT_EQ(target(*m2, c).value, target(*arcface, c).value);
    EXPECT_EQ(target(*m2, c).slope, target(*arcface, c).slope);
    EXPECT_EQ(target(*m3, c).value, target(*cosface, c).value);
    EXPECT_EQ(target(*m3, c).slope, target(*cosface, c).slope);
    EXPECT_EQ(target(*m0, c).value, target(*none, c).value);
  }
}

TEST(Filter, TakesHighCosinesOfOtherClassesAsZero) {
  const auto m = margin("cosface", "interclass_filtering_threshold = 0.5\nscale = 8");
  EXPECT_EQ(other(*m, 0.75).value, 0);
  EXPECT_EQ(other(*m, 0.75).slope, 0);
  EXPECT_EQ(other(*m, 0.5).value, 4);  // not above it
  EXPECT_EQ(other(*m, -0.75).value, -6);
  EXPECT_NEAR(target(*m, 0.75).value, 8 * (0.75 - 0.4), 1e-6);  // a row's own class is kept
}

TEST(Filter, WorksOnTilesWithAStride) {
  const auto m = margin("arcface", "interclass_filtering_threshold = 0.5\nscale = 2");
  const MarginRow<float> rows[2] = {{0, 1}, {0, 1}};
  float cosines[8] = {0.25f, 0.75f, -1.5f, 9, 1.5f, 0.5f, -0.5f, 9}, slopes[8] = {};
  slopes[3] = slopes[7] = 9;
  m->f32.others(m->functor, {2, 3, 4, cosines, slopes, rows});
  EXPECT_THAT(cosines, testing::ElementsAre(0.5f, 0, -2, 9, 0, 1, -1, 9));
  EXPECT_THAT(slopes, testing::ElementsAre(2, 0, 0, 9, 0, 2, 2, 9));
}

TEST(Softmax, WorksOnRawProducts) {
  const auto m = margin("softmax");
  EXPECT_FALSE(m->normalized);
  EXPECT_EQ(m->scale, 1);
  EXPECT_EQ(target(*m, 12.5).value, 12.5);
  EXPECT_EQ(target(*m, 12.5).slope, 1);
  EXPECT_TRUE(margin("normalized_softmax")->normalized);
}

TEST(HeadKeys, AreChecked) {
  EXPECT_THROW(margin("arcface", "scale = 0"), ConfigError);
  EXPECT_THROW(margin("arcface", "margin = -0.1"), ConfigError);
  EXPECT_THROW(margin("arcface", "gradient = \"none\""), ConfigError);
  EXPECT_THROW(margin("combined", "m1 = 0"), ConfigError);
  EXPECT_THROW(margin("cosface", "interclass_filtering_threshold = 2"), ConfigError);
}

}  // namespace
}  // namespace ftrain
