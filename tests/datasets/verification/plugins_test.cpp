#include <gtest/gtest.h>

#include "ftrain/data/pair_set.h"
#include "ftrain/plugin/registry.h"
#include "shared_data.h"

namespace ftrain {
namespace {

TEST(VerificationPlugins, the_libraries_offer_both_formats) {
  const auto att = shared_data("att"), formats = shared_data("formats");
  FTRAIN_SKIP_WITHOUT(att);
  FTRAIN_SKIP_WITHOUT(formats);
  Registry registry({FTRAIN_PLUGINS});
  const auto tsv = registry.create<PairSet>("tsv", Table::empty("verify.att"));
  tsv->open(att / "test" / "pairs.tsv", 0);
  EXPECT_EQ(tsv->images(), 100);
  EXPECT_EQ(tsv->pairs().size(), 900u);
  const auto bin = registry.create<PairSet>("bin", Table::empty("verify.small_lfw"));
  bin->open(formats / "small_lfw.bin", 0);
  EXPECT_EQ(bin->images(), 20);
}

}  // namespace
}  // namespace ftrain
