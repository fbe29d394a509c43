#include "ftrain/base/philox.h"

#include <gmock/gmock.h>

#include <cmath>

namespace ftrain {
namespace {

using testing::ElementsAre;

// The known answers of Random123 for philox4x32-10.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_THAT(Philox::at(0, 0u, 0u, 0u, 0u).word,
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox::at(~0ull, ~0u, ~0u, ~0u, ~0u).word,
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox::at(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344).word,
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(Philox, TheTwoFormsOfTheCounterAgree) {
  const auto halves = Philox::at(0x299f31d0a4093822, std::uint64_t{0x0370734413198a2e},
                                 std::uint64_t{0x85a308d3243f6a88});
  EXPECT_THAT(halves.word, ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
  EXPECT_EQ(halves.bits64(0), 0x94fdccebd16cfe09u);
  EXPECT_EQ(halves.bits64(1), 0x24126ea15001e420u);
}

TEST(Philox, UniformLiesBelowOne) {
  EXPECT_EQ((Philox{{~0u, 0, 0, 0}}.uniform(0)), 1.0f - std::ldexp(1.0f, -24));
  EXPECT_EQ((Philox{{255, 0, 0, 0}}.uniform(0)), 0.0f);
  EXPECT_EQ((Philox{{0x80000000u, 0, 0, 0}}.uniform(0)), 0.5f);
}

TEST(Mix64, TellsItsArgumentsApart) {
  EXPECT_NE(mix64(1, 2), mix64(2, 1));
  EXPECT_NE(mix64(0, 0), mix64(0, 1));
  EXPECT_NE(mix64(0, 0), mix64(1, 0));
}

}  // namespace
}  // namespace ftrain
