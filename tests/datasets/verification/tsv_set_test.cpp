#include "datasets/verification/tsv_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "ftrain/base/error.h"
#include "shared_data.h"

namespace ftrain {
namespace {

using testing::HasSubstr;

class TsvSetTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / ("tsv_set_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_ / "a");
    for (const char* name : {"a/1.png", "a/2.png", "3.png"}) std::ofstream(folder_ / name) << name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string open(const std::string& text, TsvSet& set) const {
    std::ofstream(folder_ / "pairs.tsv", std::ios::binary) << text;
    try {
      set.open(folder_ / "pairs.tsv", 0);
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  }
  std::string open(const std::string& text) const {
    TsvSet set;
    return open(text, set);
  }

  std::filesystem::path folder_;
};

TEST_F(TsvSetTest, names_are_relative_to_the_list_and_each_file_is_one_image) {
  TsvSet set;
  ASSERT_EQ(open("a/1.png\ta/2.png\t1\r\n\na/1.png\t3.png\t0", set), "no error");
  EXPECT_EQ(set.images(), 3);
  ASSERT_EQ(set.pairs().size(), 2u);
  EXPECT_TRUE(set.pairs()[0].same);
  EXPECT_FALSE(set.pairs()[1].same);
  EXPECT_EQ(set.pairs()[1].first, 0);
  EXPECT_EQ(set.pairs()[1].second, 2);
  const auto bytes = set.image(2);
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), "3.png");
  EXPECT_THAT(set.describe_image(1), HasSubstr("a/2.png"));
}

TEST_F(TsvSetTest, a_list_sorted_by_verdict_is_dealt_evenly) {
  std::string sorted;
  for (int i = 0; i < 20; ++i) sorted += "a/1.png\ta/2.png\t1\n";
  for (int i = 0; i < 10; ++i) sorted += "a/1.png\t3.png\t0\n";
  TsvSet set;
  ASSERT_EQ(open(sorted, set), "no error");
  ASSERT_EQ(set.pairs().size(), 30u);
  for (std::size_t begin = 0; begin < 30; begin += 3) {
    const auto fold = set.pairs().begin() + static_cast<std::ptrdiff_t>(begin);
    EXPECT_EQ(std::count_if(fold, fold + 3, [](const Pair& pair) { return pair.same; }), 2)
        << "pairs from " << begin;
  }
}

TEST_F(TsvSetTest, errors_name_the_line) {
  const std::string good = "a/1.png\ta/2.png\t1\n";
  EXPECT_THAT(open(good + "a/1.png a/2.png 1\n"), HasSubstr("pairs.tsv:2: needs file<TAB>file"));
  EXPECT_THAT(open(good + good + "a/1.png\ta/2.png\tyes\n"),
              HasSubstr("pairs.tsv:3: the third field is 1 (same person) or 0, got 'yes'"));
  EXPECT_THAT(open(good + "a/1.png\ta/9.png\t1\n"), HasSubstr("pairs.tsv:2: there is no file"));
  EXPECT_THAT(open("\ta/1.png\t1\n"), HasSubstr("pairs.tsv:1: a file's name is empty"));
  EXPECT_THAT(open("\n"), HasSubstr("holds no pairs"));
}

TEST_F(TsvSetTest, reads_the_pairs_of_att) {
  const auto data = shared_data("att");
  FTRAIN_SKIP_WITHOUT(data);
  TsvSet set;
  set.open(data / "test" / "pairs.tsv", 0);
  EXPECT_EQ(set.images(), 100);
  EXPECT_GT(set.pairs().size(), 100u);
  for (std::int64_t i = 0; i < set.images(); ++i) {
    const auto image = set.image(i);
    ASSERT_GT(image.size(), 8u);
    EXPECT_EQ(image[1], 'P') << "a PNG begins with 0x89 PNG";
  }
}

}  // namespace
}  // namespace ftrain
