#include "ftrain/base/suggest.h"

#include <gmock/gmock.h>

namespace ftrain {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<std::string> heads = {"softmax", "normalized_softmax", "arcface", "cosface",
                                        "combined"};

TEST(NearNames, FindsInsertDeleteReplaceAndSwap) {
  EXPECT_THAT(near_names("arcfacee", heads), ElementsAre("arcface"));
  EXPECT_THAT(near_names("combned", heads), ElementsAre("combined"));
  EXPECT_THAT(near_names("combyned", heads), ElementsAre("combined"));
  const std::vector<std::string> keys = {"rate"};
  EXPECT_THAT(near_names("raet", keys), ElementsAre("rate"));  // one swap; two replacements are far
  EXPECT_THAT(near_names("rxye", keys), IsEmpty());
}

TEST(NearNames, PutsTheNearestFirst) {
  EXPECT_THAT(near_names("crcface", heads), ElementsAre("arcface", "cosface"));
  EXPECT_THAT(near_names("cosfase", heads), ElementsAre("cosface"));
}

TEST(NearNames, TakesContainedNamesAndIgnoresCase) {
  EXPECT_THAT(near_names("normalized", heads), ElementsAre("normalized_softmax"));
  const std::vector<std::string> tails = {"E", "FC", "GDC"};
  EXPECT_THAT(near_names("gdc", tails), ElementsAre("GDC"));
}

TEST(NearNames, GivesAtMostThreeAndNothingWhenNothingIsNear) {
  const std::vector<std::string> many = {"rate1", "rate2", "rate3", "rate4"};
  EXPECT_EQ(near_names("rate", many).size(), 3u);
  EXPECT_THAT(near_names("triplet", heads), IsEmpty());
  EXPECT_THAT(near_names("", heads), IsEmpty());
}

TEST(DidYouMean, IsASentenceOrNothing) {
  EXPECT_EQ(did_you_mean("crcface", heads), " Did you mean 'arcface' or 'cosface'?");
  EXPECT_EQ(did_you_mean("triplet", heads), "");
}

TEST(Join, ListsWords) {
  const std::vector<std::string> words = {"a", "b", "c"};
  EXPECT_EQ(join(words), "a, b and c");
  EXPECT_EQ(join(std::span(words).first(2), " or "), "a or b");
  EXPECT_EQ(join(std::span(words).first(1)), "a");
  EXPECT_EQ(join({}), "none");
}

}  // namespace
}  // namespace ftrain
