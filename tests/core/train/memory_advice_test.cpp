#include "core/train/memory_advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ftrain/ops.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr std::size_t gib = std::size_t{1} << 30;

std::string advice_on(std::size_t needed, std::size_t available, const MemoryGrowth& growth) {
  const OutOfMemoryError error("the GPU is full", needed, available);
  const OutOfMemoryError advised = with_advice(error, growth);
  EXPECT_EQ(advised.needed, needed);
  EXPECT_EQ(advised.available, available);
  EXPECT_EQ(advised.exit_code(), ExitCode::device);
  return advised.what();
}

TEST(MemoryAdvice, NamesTheBatchThatFits) {
  const MemoryGrowth growth{.batch_key = "[dataset] batch", .batch = 128, .state_bytes = 20 * gib};
  // 97 GiB less 20 of states, where 128 samples take 160: 61.6.
  EXPECT_THAT(advice_on(180 * gib, 100 * gib, growth),
              AllOf(HasSubstr("the GPU is full; "),
                    HasSubstr("about [dataset] batch = 61 instead of 128 would fit"),
                    Not(HasSubstr("classes"))));
}

TEST(MemoryAdvice, NamesTheClassesThatFit) {
  const MemoryGrowth growth{.batch_key = "[dataset] batch",
                            .batch = 128,
                            .classes = 1000000,
                            .state_bytes = 100 * gib,
                            .centers_bytes = 90 * gib};
  // 13 GiB are missing of the 90 that a million classes take.
  const std::string text = advice_on(110 * gib, 100 * gib, growth);
  EXPECT_THAT(text, AllOf(HasSubstr("about 855555 classes instead of 1000000 would fit"),
                          HasSubstr("centers_memory = \"host\""), Not(HasSubstr("batch ="))));
}

TEST(MemoryAdvice, NamesBothWhereBothHelp) {
  const MemoryGrowth growth{.batch_key = "[dataset] batch",
                            .batch = 64,
                            .classes = 1000,
                            .state_bytes = 40 * gib,
                            .centers_bytes = 30 * gib};
  EXPECT_THAT(advice_on(110 * gib, 100 * gib, growth),
              AllOf(HasSubstr("about [dataset] batch = 52 instead of 64 would fit"),
                    HasSubstr("or about 566 classes instead of 1000;")));
}

TEST(MemoryAdvice, SaysWhenNoBatchFits) {
  const MemoryGrowth growth{.batch_key = "[verify] batch", .batch = 2, .state_bytes = 0};
  EXPECT_THAT(advice_on(110 * gib, gib, growth),
              HasSubstr("not even [verify] batch = 1 would fit"));
}

TEST(MemoryAdvice, CountsTheStatesOfTheDeviceAlone) {
  Graph graph;
  graph.state({.name = "conv", .type = {DType::f32, {10}}});
  graph.state({.name = "centers", .type = {DType::f32, {50, 4}}, .rows = 100});
  graph.state({.name = "far",
               .type = {DType::f32, {50, 4}},
               .memory = StateSpec::Memory::host,
               .rows = 100});
  const MemoryGrowth added = growth_of(graph, true, "batch", 8, 100);
  EXPECT_EQ(added.state_bytes, 840u);
  EXPECT_EQ(added.centers_bytes, 800u);
  EXPECT_EQ(added.classes, 100);
  const MemoryGrowth shared = growth_of(graph, false, "batch", 8, 100);
  EXPECT_EQ(shared.state_bytes, 0u);
  EXPECT_EQ(shared.classes, 0);
}

}  // namespace
}  // namespace ftrain
