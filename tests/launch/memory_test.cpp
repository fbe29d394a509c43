// What `ftrain plan` predicts against what a run takes, and the largest job that fits.
#include <gmock/gmock.h>

#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class PlannedMemory : public Launch {
 protected:
  std::vector<std::string> with(std::vector<std::string> words,
                                const std::vector<std::string>& sets) const {
    for (const std::string& set : sets) {
      words.emplace_back("--set");
      words.push_back(set);
    }
    return words;
  }
  json plan(std::vector<std::string> words, const std::vector<std::string>& sets = {}) const {
    words.insert(words.begin(), {"plan", "job.toml", "--json"});
    const Result result = ftrain(with(words, sets));
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out, nullptr, false);
  }
};

TEST_F(PlannedMemory, IsWhatARunTakes) {
  const std::vector<std::vector<std::string>> jobs{
      {"run.steps=3"},
      {"run.steps=3", "dataset.batch=16", "device.threads=2"},
      {"run.steps=2", "backbone.plugin=iresnet", "backbone.depth=18", "dataset.image_size=64"},
      {"run.steps=2", "dataset.plugin=synthetic", "dataset.classes=100000",
       "parallelism.plugin=partial_fc", "verify.sets=[]"},
  };
  for (const std::vector<std::string>& sets : jobs) {
    plan({}, sets);  // measures the kernels: what is left of that is no part of a later process
    const auto predicted = plan({}, sets).at("peak_memory_bytes").get<double>();
    const Result result = ftrain(with(run("a", {"--fresh"}), sets));
    ASSERT_EQ(result.code, 0) << result.err;
    const auto taken = summary("a").at("peak_memory_bytes").get<double>();
    EXPECT_NEAR(predicted / taken, 1, 0.05) << predicted << " of " << taken << " for " << sets[1];
  }
}

TEST_F(PlannedMemory, DoesNotGrow) {
  const auto peak = [&](const char* steps) {
    const Result result =
        ftrain(with(run("a", {"--fresh"}),
                    {std::string("run.steps=") + steps, "verify.sets=[]", "dataset.size=32"}));
    EXPECT_EQ(result.code, 0) << result.err;
    return summary("a").at("peak_memory_bytes").get<double>();
  };
  const double early = peak("100"), late = peak("2000");
  EXPECT_LT(late, early * 1.01 + (1 << 19));
}

TEST_F(PlannedMemory, LargestBatchFits) {
  const json found = plan({"--max-batch", "--memory", "512MiB"}, {"device.autotune=false"});
  const auto batch = found.at("max_batch").at("value").get<std::int64_t>();
  EXPECT_GT(batch, 16);
  EXPECT_LE(found.at("max_batch").at("peak_memory_bytes"), 512 << 20);
  const auto peak_at = [&](std::int64_t value) {
    return plan({}, {"device.autotune=false", "dataset.batch=" + std::to_string(value)})
        .at("peak_memory_bytes")
        .get<double>();
  };
  // The process itself is measured anew by each plan.
  EXPECT_LT(peak_at(batch), 512.5 * (1 << 20));
  EXPECT_GT(peak_at(batch + 2), 510.0 * (1 << 20));
}

TEST_F(PlannedMemory, MostClassesFit) {
  const json found = plan({"--max-classes", "--memory", "1GiB"});
  const auto classes = found.at("max_classes").at("value").get<double>();
  const auto peak = found.at("max_classes").at("peak_memory_bytes").get<double>();
  EXPECT_LE(peak, 1 << 30);
  EXPECT_GT(peak, 0.99 * (1 << 30));
  // Centers and their momentum, 16 wide.
  EXPECT_GT(classes * 16 * 8, 0.7 * (1 << 30));
}

TEST_F(PlannedMemory, SaysWhenNothingFits) {
  const Result none = ftrain({"plan", "job.toml", "--max-batch", "--memory", "1MiB"});
  EXPECT_EQ(none.code, 4);
  EXPECT_THAT(none.err, HasSubstr("not even a step of 1 sample fits"));
  const Result unit = ftrain({"plan", "job.toml", "--max-batch", "--memory", "8 apples"});
  EXPECT_EQ(unit.code, 2);
  EXPECT_THAT(unit.err, HasSubstr("as in 16GiB"));
}

}  // namespace
}  // namespace launch_test
