// The oracle itself, against numbers worked out by hand: what an op means, not only that kernels
// agree on it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "ftrain/ops.h"
#include "plugins/devices/cpu/reference/convert.h"
#include "tests/plugins/devices/cpu/interpreter.h"

namespace ftrain::cpu {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

// A graph whose leaves are given with their contents.
class Reference : public testing::Test {
 protected:
  template <class T>
  Value leaf(Shape shape, std::vector<T> contents) {
    const Value value =
        graph_.input("leaf" + std::to_string(graph_.size()), {dtype_of<T>, std::move(shape)});
    keep(value, contents);
    return value;
  }
  Value floats(Shape shape, std::vector<float> contents) {
    return leaf<float>(std::move(shape), std::move(contents));
  }
  Value state(std::vector<float> contents) {
    const Value value =
        graph_.state({.name = "state" + std::to_string(graph_.size()),
                      .type = {DType::f32, {static_cast<std::int64_t>(contents.size())}}});
    keep(value, contents);
    return value;
  }
  void run() {
    interpreter_ = std::make_unique<Interpreter>(graph_);
    for (const auto& [value, bytes] : contents_) {
      std::memcpy(interpreter_->bytes(value), bytes.data(), bytes.size());
    }
    interpreter_->run();
  }
  template <class T = float>
  std::vector<T> result(Value value) {
    const std::span<T> found = interpreter_->data<T>(value);
    return {found.begin(), found.end()};
  }

  Graph graph_;

 private:
  template <class T>
  void keep(Value value, const std::vector<T>& contents) {
    const auto* first = reinterpret_cast<const std::byte*>(contents.data());
    contents_.emplace_back(value,
                           std::vector<std::byte>(first, first + contents.size() * sizeof(T)));
  }
  std::vector<std::pair<Value, std::vector<std::byte>>> contents_;
  std::unique_ptr<Interpreter> interpreter_;
};

TEST_F(Reference, ConvolutionCorrelatesPaddedImages) {
  const Value x = floats({1, 1, 3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9});
  const Value w = floats({1, 1, 2, 2}, {1, 10, 100, 1000});
  const Value y = ops::conv2d(x, w, {1, 0, 1});
  const Value padded = ops::conv2d(x, w, {2, 1, 1});
  run();
  EXPECT_THAT(result(y), ElementsAre(5421, 6532, 8754, 9865));
  EXPECT_THAT(result(padded), ElementsAre(1000, 3200, 7040, 9865));
}

TEST_F(Reference, GroupsKeepTheirChannelsApart) {
  const Value x = floats({1, 4, 1, 1}, {1, 2, 3, 4});
  const Value w = floats({2, 2, 1, 1}, {1, 10, 100, 1000});
  const Value y = ops::conv2d(x, w, {1, 0, 2});
  run();
  EXPECT_THAT(result(y), ElementsAre(21, 4300));
}

TEST_F(Reference, ProductsTranspose) {
  const Value a = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  const Value b = floats({2, 3}, {1, 0, 1, 0, 1, 0});
  const Value ab = ops::matmul(a, b, false, true);
  const Value ba = ops::matmul(a, b, true, false);
  run();
  EXPECT_THAT(result(ab), ElementsAre(4, 2, 10, 5));
  EXPECT_THAT(result(ba), ElementsAre(1, 4, 1, 2, 5, 2, 3, 6, 3));
}

TEST_F(Reference, PReLUKeepsASlopeForEachChannel) {
  const Value y = ops::prelu(floats({1, 2, 1, 2}, {-1, 2, -4, 0}), floats({2}, {0.5, 0.25}));
  run();
  EXPECT_THAT(result(y), ElementsAre(-0.5, 2, -1, 0));
}

TEST_F(Reference, MomentsAreOfGroupsOfSamplesAndBiased) {
  const Value x = floats({4, 1, 1, 2}, {1, 3, 5, 7, 0, 0, 0, 4});
  const ops::Moments one = ops::batch_moments(x, 1), two = ops::batch_moments(x, 2);
  run();
  EXPECT_THAT(result(one.mean), ElementsAre(2.5));
  EXPECT_THAT(result(one.variance), ElementsAre(6.25));
  EXPECT_THAT(result(two.mean), ElementsAre(4, 1));
  EXPECT_THAT(result(two.variance), ElementsAre(5, 3));
}

TEST_F(Reference, BatchNormUsesEachGroupsMoments) {
  const Value x = floats({2, 1}, {3, 5});
  const ops::Moments moments{floats({2, 1}, {1, 6}), floats({2, 1}, {3, 0})};
  const Value y = ops::batch_norm(x, moments, floats({1}, {4}), floats({1}, {0.5}), {1.0, 1});
  run();
  EXPECT_THAT(result(y), ElementsAre(4.5, -3.5));
}

TEST_F(Reference, RunningStatisticsTakeTheUnbiasedVariance) {
  const ops::Moments moments{floats({2, 1}, {2, 4}), floats({2, 1}, {6, 12})};
  const Value mean = state({1}), variance = state({10});
  ops::update_running(mean, variance, moments, floats({}, {1}), 0.1, 10);
  const Value kept_mean = state({1}), kept_variance = state({10});
  ops::update_running(kept_mean, kept_variance, moments, floats({}, {0}), 0.1, 10);
  run();
  EXPECT_THAT(result(mean), ElementsAre(FloatEq(0.9f + 0.3f)));
  EXPECT_THAT(result(variance), ElementsAre(FloatEq(9 + 1)));  // 0.9 x 10 + 0.1 x 9 x 10/9
  EXPECT_THAT(result(kept_mean), ElementsAre(1));
  EXPECT_THAT(result(kept_variance), ElementsAre(10));
}

TEST_F(Reference, MomentsOfRanksThatAreAlikeAreTheirOwn) {
  const ops::Moments local{floats({1, 2}, {2, 4}), floats({1, 2}, {6, 12})};
  const ops::Moments all = ops::combine_moments(local, 4);
  run();
  EXPECT_THAT(result(all.mean), ElementsAre(2, 4));
  EXPECT_THAT(result(all.variance), ElementsAre(6, 12));
}

TEST_F(Reference, NormalizeSurvivesARowOfZeros) {
  const ops::Normalized n = ops::normalize(floats({2, 2}, {3, 4, 0, 0}));
  run();
  EXPECT_THAT(result(n.rows), ElementsAre(FloatEq(0.6f), FloatEq(0.8f), 0, 0));
  EXPECT_THAT(result(n.norms), ElementsAre(5, 0));
}

TEST_F(Reference, ClipsLikeTorch) {
  const Value clipped = ops::clip_coefficient(floats({}, {100}), 5);
  const Value whole = ops::clip_coefficient(floats({}, {16}), 5);
  const Value lost = ops::clip_coefficient(floats({}, {INFINITY}), 5);
  run();
  EXPECT_THAT(result(clipped), ElementsAre(FloatEq(static_cast<float>(5 / (10 + 1e-6)))));
  EXPECT_THAT(result(whole), ElementsAre(1));
  EXPECT_THAT(result(lost), ElementsAre(0));
}

TEST_F(Reference, FiniteIsOneOnlyWhenAllAre) {
  const Value good = floats({}, {1}), infinite = floats({}, {-INFINITY}), none = floats({}, {NAN});
  const Value yes = ops::all_finite({good, good});
  const Value no = ops::all_finite({good, infinite}), neither = ops::all_finite({none, good});
  run();
  EXPECT_THAT(result(yes), ElementsAre(1));
  EXPECT_THAT(result(no), ElementsAre(0));
  EXPECT_THAT(result(neither), ElementsAre(0));
}

TEST_F(Reference, SquaresAddUpInDouble) {
  // In float, 1 is lost beside 2^30.
  std::vector<float> many(64, 1.0f);
  many[0] = 32768;
  const Value squares = ops::squared_norm({floats({64}, many), floats({}, {1})});
  run();
  EXPECT_THAT(result(squares), ElementsAre(1073741824.0f + 64));
}

TEST_F(Reference, DropoutDrawsByTheGlobalElement) {
  constexpr std::int64_t columns = 500;
  const Value step = leaf<std::int64_t>({}, {9}), later = leaf<std::int64_t>({}, {10});
  const Value whole = floats({4, columns}, std::vector<float>(4 * columns, 1));
  const Value half = floats({2, columns}, std::vector<float>(2 * columns, 1));
  const Value y = ops::dropout(whole, 0.25, step, 1, 0);
  const Value second_rank = ops::dropout(half, 0.25, step, 1, 2);
  const Value next = ops::dropout(whole, 0.25, later, 1, 0);
  const Value other = ops::dropout(whole, 0.25, step, 2, 0);
  run();
  const auto all = result(y);
  EXPECT_EQ(result(second_rank), std::vector<float>(all.begin() + 2 * columns, all.end()));
  EXPECT_NE(result(next), all);
  EXPECT_NE(result(other), all);
  const auto kept = std::count(all.begin(), all.end(), static_cast<float>(1 / 0.75));
  EXPECT_EQ(kept + std::count(all.begin(), all.end(), 0.0f), 4 * columns);
  EXPECT_NEAR(static_cast<double>(kept), 0.75 * 4 * columns, 80);  // 4 deviations
}

TEST_F(Reference, ImagesBecomePlanesAndFlip) {
  std::vector<std::uint8_t> pixels(2 * 1 * 2 * 3);
  std::iota(pixels.begin(), pixels.end(), std::uint8_t{0});
  const Value image = leaf<std::uint8_t>({2, 1, 2, 3}, pixels);
  const Value step = leaf<std::int64_t>({}, {0});
  const Value straight = ops::image_normalize(image, step, {.mean = 1, .scale = 2});
  const Value flipped = ops::image_normalize(image, step, {.mean = 0, .scale = 1, .flip = 1});
  run();
  EXPECT_THAT(result(straight), ElementsAre(-2, 4, 0, 6, 2, 8, 10, 16, 12, 18, 14, 20));
  EXPECT_THAT(result(flipped), ElementsAre(3, 0, 4, 1, 5, 2, 9, 6, 10, 7, 11, 8));
}

TEST_F(Reference, SamplesFlipByTheirGlobalNumber) {
  constexpr std::int64_t samples = 400;
  std::vector<std::uint8_t> pixels;
  for (std::int64_t n = 0; n < samples; ++n) pixels.insert(pixels.end(), {0, 0, 0, 1, 1, 1});
  const Value step = leaf<std::int64_t>({}, {3});
  const ops::ImageNormalize options{.mean = 0, .scale = 1, .flip = 0.5, .seed = 8};
  ops::ImageNormalize later = options;
  later.first_sample = samples - 100;
  const Value y =
      ops::image_normalize(leaf<std::uint8_t>({samples, 1, 2, 3}, pixels), step, options);
  pixels.resize(100 * 6);
  const Value tail = ops::image_normalize(leaf<std::uint8_t>({100, 1, 2, 3}, pixels), step, later);
  run();
  const auto all = result(y);
  EXPECT_EQ(result(tail), std::vector<float>(all.end() - 100 * 6, all.end()));
  double flips = 0;
  for (std::size_t i = 0; i < all.size(); i += 6) flips += all[i];
  EXPECT_NEAR(flips, samples / 2.0, 40);  // 4 deviations
}

TEST(Convert, RoundsHalvesToEven) {
  struct Row {
    float value;
    std::uint16_t half, brain;
  };
  // Ties, a carry into the exponent, the largest half, subnormal halves, what is too large.
  const Row rows[] = {{0.0f, 0x0000, 0x0000},           {-2.0f, 0xC000, 0xC000},
                      {1.0009765625f, 0x3C01, 0x3F80},  {1.00048828125f, 0x3C00, 0x3F80},
                      {1.00146484375f, 0x3C02, 0x3F80}, {1.00390625f, 0x3C04, 0x3F80},
                      {1.01171875f, 0x3C0C, 0x3F82},    {2047.9f, 0x6800, 0x4500},
                      {65504.0f, 0x7BFF, 0x4780},       {65520.0f, 0x7C00, 0x4780},
                      {0x1p-24f, 0x0001, 0x3380},       {0x1.8p-24f, 0x0002, 0x33C0},
                      {0x1p-14f, 0x0400, 0x3880},       {INFINITY, 0x7C00, 0x7F80}};
  for (const auto& [value, half, brain] : rows) {
    std::uint16_t bits = 0;
    convert(&value, DType::f32, &bits, DType::f16, 1);
    EXPECT_EQ(bits, half) << value;
    float back = 0;
    convert(&half, DType::f16, &back, DType::f32, 1);
    std::uint16_t again = 0;
    convert(&back, DType::f32, &again, DType::f16, 1);
    EXPECT_EQ(again, half) << value << " by way of " << back;
    convert(&value, DType::f32, &bits, DType::bf16, 1);
    EXPECT_EQ(bits, brain) << value;
  }
  const float none = NAN;
  std::uint16_t bits = 0;
  float back = 0;
  for (const DType type : {DType::f16, DType::bf16}) {
    convert(&none, DType::f32, &bits, type, 1);
    convert(&bits, type, &back, DType::f32, 1);
    EXPECT_TRUE(std::isnan(back));
  }
}

TEST(Convert, KeepsWholeNumbersWhole) {
  const std::int64_t large[] = {(std::int64_t{1} << 53) + 1, -7};
  std::int64_t same[2];
  std::int32_t small[2];
  convert(large, DType::i64, same, DType::i64, 2);
  convert(large, DType::i64, small, DType::i32, 2);
  EXPECT_EQ(same[0], large[0]);
  EXPECT_EQ(small[1], -7);
}

}  // namespace
}  // namespace ftrain::cpu
