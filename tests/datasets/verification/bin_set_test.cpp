#include "datasets/verification/bin_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "datasets/verification/pickle_samples.h"
#include "ftrain/base/error.h"
#include "shared_data.h"

namespace ftrain {
namespace {

using samples::whole;
using testing::HasSubstr;

class BinSetTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / ("bin_set_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& bytes) const {
    const auto path = folder_ / "set.bin";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  std::string error_of(const std::string& bytes) const {
    BinSet set;
    try {
      set.open(write(bytes), 0);
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

bool is_jpeg(const std::vector<std::uint8_t>& bytes) {
  return bytes.size() > 4 && bytes[0] == 0xff && bytes[1] == 0xd8 &&
         bytes[bytes.size() - 2] == 0xff && bytes.back() == 0xd9;
}

TEST_F(BinSetTest, reads_one_set_in_every_protocol) {
  const std::string first = whole("\377\330ab"), second = whole("\377\330\000\n\351\\z");
  for (const auto& sample : samples::all()) {
    SCOPED_TRACE(sample.name);
    BinSet set;
    set.open(write(sample.bytes), 0);
    ASSERT_EQ(set.images(), 2);
    const auto a = set.image(0), b = set.image(1);
    EXPECT_EQ(std::string(a.begin(), a.end()), first);
    EXPECT_EQ(std::string(b.begin(), b.end()), second);
    ASSERT_EQ(set.pairs().size(), 1u);
    EXPECT_EQ(set.pairs()[0].first, 0);
    EXPECT_EQ(set.pairs()[0].second, 1);
    EXPECT_TRUE(set.pairs()[0].same);
    EXPECT_THAT(set.describe_image(1), HasSubstr("set.bin image 1"));
  }
}

TEST_F(BinSetTest, reads_a_file_of_protocol_3) {
  const auto data = shared_data("formats");
  FTRAIN_SKIP_WITHOUT(data);
  BinSet set;
  set.open(data / "small_lfw.bin", 0);
  EXPECT_EQ(set.images(), 20);
  EXPECT_EQ(set.pairs().size(), 10u);
  for (const Pair& pair : set.pairs()) EXPECT_TRUE(pair.same);
  EXPECT_EQ(set.image(0).size(), 4996u);
  EXPECT_EQ(set.image(1).size(), 5959u);
  for (std::int64_t i = 0; i < set.images(); ++i) EXPECT_TRUE(is_jpeg(set.image(i))) << i;
}

TEST_F(BinSetTest, reads_a_file_of_protocol_4_with_arrays_of_both_shapes) {
  const auto data = shared_data("lfw");
  FTRAIN_SKIP_WITHOUT(data);
  BinSet set;
  set.open(data / "folds9_10.bin", 0);
  EXPECT_EQ(set.images(), 2400);
  ASSERT_EQ(set.pairs().size(), 1200u);
  EXPECT_EQ(
      std::count_if(set.pairs().begin(), set.pairs().end(), [](const Pair& p) { return p.same; }),
      600);
  for (std::int64_t i = 0; i < set.images(); ++i) ASSERT_TRUE(is_jpeg(set.image(i))) << i;
}

TEST_F(BinSetTest, other_structures_are_refused) {
  EXPECT_THAT(error_of("N."), HasSubstr("set.bin: is no pair of images and verdicts"));
  EXPECT_THAT(error_of("NN\206."), HasSubstr("first part is no list of images"));
  EXPECT_THAT(error_of("]N\206."), HasSubstr("second part is no list of verdicts"));
  EXPECT_THAT(error_of("](Ne](I01\ne\206."), HasSubstr("image 0 is no byte string"));
  EXPECT_THAT(error_of("](U\001ae](I01\ne\206."), HasSubstr("1 images and 1 verdicts"));
  EXPECT_THAT(error_of("](U\001aU\001be](I7\ne\206."), HasSubstr("verdict 0 is no bool"));
  EXPECT_THAT(error_of(""), HasSubstr("cut short"));
}

TEST_F(BinSetTest, a_hostile_file_is_refused_and_runs_nothing) {
  const auto witness = folder_ / "witness";
  EXPECT_THAT(error_of("cos\nsystem\n(Vtouch " + witness.string() + "\ntR."),
              HasSubstr("opcode GLOBAL of os.system refused"));
  EXPECT_FALSE(std::filesystem::exists(witness));
}

TEST_F(BinSetTest, a_missing_file_is_named) {
  BinSet set;
  try {
    set.open(folder_ / "absent.bin", 0);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("absent.bin: cannot open: No such file"));
  }
}

}  // namespace
}  // namespace ftrain
