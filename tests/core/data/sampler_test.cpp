#include "core/data/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

TEST(Sampler, EveryEpochIsAPermutation) {
  for (const std::int64_t size : {1, 2, 3, 5, 8, 17, 100, 101, 4096, 7037}) {
    const Sampler sampler(size, 1, true, 2048);
    for (const std::int64_t epoch : {0, 1, 7}) {
      std::vector<int> seen(static_cast<std::size_t>(size));
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t index = sampler.index(epoch, i);
        ASSERT_GE(index, 0);
        ASSERT_LT(index, size);
        ++seen[static_cast<std::size_t>(index)];
      }
      EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(size), 1)) << size;
    }
  }
}

TEST(Sampler, LargeSetsStayInRange) {
  const std::int64_t size = (std::int64_t{1} << 40) + 12345;
  const Sampler sampler(size, 64, true, 1);
  for (std::int64_t i = 0; i < 1000; ++i) {
    const std::int64_t index = sampler.index(3, size - 1 - i);
    EXPECT_GE(index, 0);
    EXPECT_LT(index, size);
  }
}

TEST(Sampler, EpochsAndSeedsDiffer) {
  const Sampler a(1000, 1, true, 1), b(1000, 1, true, 2);
  int same_epoch = 0, same_seed = 0, fixed = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    same_epoch += a.index(0, i) == a.index(1, i);
    same_seed += a.index(0, i) == b.index(0, i);
    fixed += a.index(0, i) == i;
  }
  // One agreement is expected by chance, ten or more in one of three cases in 400,000.
  EXPECT_LT(same_epoch, 10);
  EXPECT_LT(same_seed, 10);
  EXPECT_LT(fixed, 10);
}

// Over many epochs every index comes first equally often, and neighbours come apart.
TEST(Sampler, PlacesAreUniform) {
  constexpr std::int64_t size = 10, epochs = 20000;
  const Sampler sampler(size, 1, true, 5);
  std::vector<std::vector<int>> count(size, std::vector<int>(size));
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch)
    for (std::int64_t i = 0; i < size; ++i)
      ++count[static_cast<std::size_t>(i)][static_cast<std::size_t>(sampler.index(epoch, i))];
  const double expected = static_cast<double>(epochs) / size;
  for (const auto& row : count)
    for (const int value : row) EXPECT_NEAR(value, expected, 6 * std::sqrt(expected));
}

TEST(Sampler, NoCorrelationBetweenPositionAndIndex) {
  constexpr std::int64_t size = 7037;
  const Sampler sampler(size, 1, true, 9);
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i)
    sum += (static_cast<double>(i) - (size - 1) / 2.0) *
           (static_cast<double>(sampler.index(0, i)) - (size - 1) / 2.0);
  const double variance = (static_cast<double>(size) * size - 1) / 12;
  EXPECT_NEAR(sum / size / variance, 0, 5 / std::sqrt(static_cast<double>(size)));
}

TEST(Sampler, WithoutShuffleTheOrderIsTheFiles) {
  const Sampler sampler(10, 4, false, 3);
  EXPECT_EQ(sampler.steps_per_epoch(), 2);
  const std::vector<std::int64_t> expected = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3};
  for (std::int64_t i = 0; i < 12; ++i)
    EXPECT_EQ(sampler.index_at(i / 4, i % 4), expected[static_cast<std::size_t>(i)]);
  EXPECT_EQ(sampler.epoch_of(1), 0);
  EXPECT_EQ(sampler.epoch_of(2), 1);
}

TEST(Sampler, ABatchLargerThanTheSetStartsOver) {
  const Sampler sampler(3, 8, true, 3);
  EXPECT_EQ(sampler.steps_per_epoch(), 1);
  EXPECT_EQ(sampler.epoch_of(5), 5);
  for (std::int64_t g = 0; g < 8; ++g) EXPECT_EQ(sampler.index_at(5, g), sampler.index(5, g % 3));
}

TEST(Sampler, RefusesNothingToSample) {
  EXPECT_THROW(Sampler(0, 4, true, 1), DataError);
  EXPECT_THROW(Sampler(4, 0, true, 1), ConfigError);
}

}  // namespace
}  // namespace ftrain
