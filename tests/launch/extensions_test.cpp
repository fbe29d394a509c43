// What plugins add to a run's reports: scalars of a step, verification metrics, observers. They are
// those of examples/.
#include <gmock/gmock.h>

#include <sstream>

#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Extensions : public Launch {
 protected:
  static std::vector<std::string> with(const std::string& name,
                                       const std::vector<std::string>& sets) {
    std::vector<std::string> words{"--set", "plugins.path=[\"" FTRAIN_EXAMPLES "\"]"};
    for (const std::string& set : sets) words.insert(words.end(), {"--set", set});
    return run(name, words);
  }
  // The job with the network of examples/tiny_backbone, which reports feature_norm.
  void take_tiny(const std::string& more = {}) const {
    const std::string text = job;
    const std::size_t from = text.find("[backbone]"), to = text.find("[head]");
    write("job.toml", text.substr(0, from) + "[backbone]\nplugin = \"tiny\"\nwidth = 16\n" +
                          text.substr(to) + more);
  }
};

TEST_F(Extensions, ScalarsOfABackboneAreInEveryStepsLine) {
  take_tiny();
  const Result result = ftrain(with("a", {"run.accumulate=2"}));
  ASSERT_EQ(result.code, 0) << result.err;
  const auto lines = metrics("a");
  ASSERT_EQ(lines.size(), 7u);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(lines[i]["metrics"].size(), 1u) << lines[i];
    EXPECT_GT(lines[i]["metrics"]["feature_norm"].get<double>(), 0);
  }
  EXPECT_FALSE(lines[6].contains("metrics"));
  EXPECT_EQ(summary("a")["metrics"], lines[5]["metrics"]);
  EXPECT_THAT(result.err, HasSubstr("feature_norm"));
  // An evaluation reports nothing, and finds its embedding.
  const Result verified = ftrain({"verify", "job.toml", "--set", "run.folder=runs/a", "--set",
                                  "plugins.path=[\"" FTRAIN_EXAMPLES "\"]", "--json"});
  ASSERT_EQ(verified.code, 0) << verified.err;
  EXPECT_EQ(json::parse(verified.out)["accuracy"], summary("a")["accuracy"]);
}

TEST_F(Extensions, MetricsOfAPluginAreWhereTheOthersAre) {
  const std::vector<std::string> sets{"verify.metrics=[\"accuracy\", \"eer\"]"};
  const Result result = ftrain(with("a", sets));
  ASSERT_EQ(result.code, 0) << result.err;
  const json accuracy = summary("a")["accuracy"]["portraits"];
  const json& values = accuracy["metrics"];
  EXPECT_EQ(values.size(), 2u) << accuracy;
  // They are two views of one curve: far above chance in one is so in the other.
  EXPECT_GE(values["eer"].get<double>(), 0);
  EXPECT_LE(values["eer"].get<double>(), 0.5);
  EXPECT_GE(values["roc_area"].get<double>(), 0.5);
  EXPECT_LE(values["roc_area"].get<double>(), 1);
  EXPECT_TRUE(accuracy["xnorm"].is_null());
  EXPECT_TRUE(accuracy["tar"].empty());
  EXPECT_EQ(metrics("a").back()["accuracy"]["portraits"], accuracy);
  EXPECT_THAT(result.err, AllOf(HasSubstr("eer "), HasSubstr("roc_area "), Not(HasSubstr("norm"))));

  std::vector<std::string> words = with("a", sets);
  words[0] = "verify";
  const Result verified = ftrain(words);
  ASSERT_EQ(verified.code, 0) << verified.err;
  EXPECT_THAT(verified.out, AllOf(HasSubstr("  eer: "), HasSubstr("  roc_area: ")));
  words.insert(words.end(), {"--json", "--set", "verify.eer.area=false"});
  const json alone = json::parse(ftrain(words).out)["accuracy"]["portraits"]["metrics"];
  EXPECT_EQ(alone, (json{{"eer", values["eer"]}}));
}

TEST_F(Extensions, SlipsInTheListOfMetricsAreTold) {
  const Result unknown = ftrain(with("a", {"verify.metrics=[\"accuracy\", \"err\"]"}));
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, AllOf(HasSubstr("metric"), HasSubstr("'err'"), HasSubstr("eer")));
  const Result without = ftrain(with("a", {"verify.metrics=[\"tar\"]"}));
  EXPECT_EQ(without.code, 2);
  EXPECT_THAT(without.err, HasSubstr("name `accuracy`"));
  EXPECT_FALSE(fs::exists(run_folder("a")));
}

TEST_F(Extensions, BuiltInMetricsAreListedWithThePlugins) {
  const Result list = ftrain({"plugins", "metric", "--path", FTRAIN_EXAMPLES});
  ASSERT_EQ(list.code, 0) << list.err;
  EXPECT_THAT(list.out, AllOf(HasSubstr("metric accuracy: "), HasSubstr("metric tar: "),
                              HasSubstr("metric xnorm: "), HasSubstr("[verify.eer]")));
}

TEST_F(Extensions, AnObserverOfAPluginSeesEveryStepOnce) {
  take_tiny("[observers]\nuse = [\"jsonl\", \"csv\"]\n");
  ASSERT_EQ(ftrain(with("whole", {})).code, 0);
  ASSERT_EQ(ftrain(with("parts", {"run.stop_at=2", "observers.csv.file=steps.csv"})).code, 0);
  ASSERT_EQ(ftrain(with("parts", {})).code, 0);
  const std::string table = read_text(run_folder("whole") / "steps.csv");
  EXPECT_EQ(read_text(run_folder("parts") / "steps.csv"), table);

  std::istringstream lines(table);
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "step,epoch,loss,rate,gradient_norm,feature_norm");
  for (const json& step : metrics("whole")) {
    if (step.contains("accuracy")) continue;
    ASSERT_TRUE(std::getline(lines, line));
    std::vector<double> cells;
    std::istringstream row(line);
    for (std::string cell; std::getline(row, cell, ',');) cells.push_back(std::stod(cell));
    EXPECT_EQ(cells, (std::vector<double>{step["step"], step["epoch"], step["loss"], step["rate"],
                                          step["gradient_norm"], step["metrics"]["feature_norm"]}));
  }
  EXPECT_FALSE(std::getline(lines, line));
}

}  // namespace
}  // namespace launch_test
