#include <gmock/gmock.h>

#include <cmath>

#include "dataset_fixture.h"
#include "ftrain/base/error.h"

namespace {

using ::testing::HasSubstr;

ftrain::Image image_of(const ftrain::Dataset& dataset, std::int64_t index) {
  ftrain::Sample sample;
  dataset.read(index, sample);
  ftrain::Image image;
  ftrain::Decoder().decode(sample.bytes, dataset.describe_sample(index), image);
  return image;
}

TEST(Synthetic, TheSeedDecides) {
  const std::string keys = "classes = 10\nsize = 100\nimage_size = 33\n";
  const auto a = open_dataset("synthetic", keys, 1), same = open_dataset("synthetic", keys, 1),
             other = open_dataset("synthetic", keys, 2);
  EXPECT_EQ(a->size(), 100);
  EXPECT_EQ(a->classes(), 10);
  const auto image = image_of(*a, 7);
  EXPECT_EQ(image.width, 33);
  EXPECT_EQ(image.height, 33);
  EXPECT_EQ(image.pixels, image_of(*same, 7).pixels);
  EXPECT_NE(image.pixels, image_of(*other, 7).pixels);
  EXPECT_NE(image.pixels, image_of(*a, 8).pixels);
}

TEST(Synthetic, PixelsAndLabelsAreUniform) {
  const auto dataset = open_dataset("synthetic", "classes = 7\nimage_size = 100\n");
  EXPECT_EQ(dataset->size(), 1000000);
  std::vector<int> values(256), labels(7);
  for (const std::uint8_t value : image_of(*dataset, 999999).pixels) ++values[value];
  const double expected = 30000 / 256.0;
  for (const int count : values) EXPECT_NEAR(count, expected, 6 * std::sqrt(expected));
  ftrain::Sample sample;
  for (std::int64_t i = 0; i < 700; ++i) {
    dataset->read(i, sample);
    ASSERT_GE(sample.label, 0);
    ASSERT_LT(sample.label, 7);
    ++labels[static_cast<std::size_t>(sample.label)];
  }
  for (const int count : labels) EXPECT_NEAR(count, 100, 60);
}

TEST(Synthetic, ClassesMustBeGiven) {
  EXPECT_THAT(complaint<ftrain::ConfigError>("synthetic", ""), HasSubstr("classes = 1000"));
  EXPECT_THAT(complaint<ftrain::ConfigError>("synthetic", "classes = 0\n"),
              HasSubstr("at least 1"));
  EXPECT_THAT(complaint<ftrain::ConfigError>("synthetic", "clases = 9\n"), HasSubstr("classes"));
}

}  // namespace
