// The commands that do not train: help, plan, config, plugins, data, verify; slips in a job.
#include <gmock/gmock.h>

#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != "out.txt" && name != "err.txt") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST_F(Launch, HelpEverywhere) {
  const Result top = ftrain({"--help"});
  EXPECT_EQ(top.code, 0);
  EXPECT_THAT(top.out, HasSubstr("usage: ftrain COMMAND"));
  for (const char* command : {"run", "verify", "embed", "plan", "plugins", "data", "config"}) {
    EXPECT_THAT(top.out, HasSubstr(command));
    const Result help = ftrain({command, "--help"});
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr(std::string("usage: ftrain ") + command));
  }
  EXPECT_EQ(ftrain({"data", "show", "--help"}).code, 0);
  EXPECT_THAT(ftrain({"--version"}).out, StartsWith("ftrain "));
  EXPECT_EQ(ftrain({}).code, 2);
}

TEST_F(Launch, SlipsOnTheCommandLineAreAnsweredWithNearNames) {
  const Result command = ftrain({"verfy", "job.toml"});
  EXPECT_EQ(command.code, 2);
  EXPECT_THAT(command.err, AllOf(StartsWith("error: ConfigError:"), HasSubstr("'verify'")));
  const Result option = ftrain({"run", "job.toml", "--frsh"});
  EXPECT_EQ(option.code, 2);
  EXPECT_THAT(option.err, HasSubstr("'--fresh'"));
  EXPECT_THAT(ftrain({"run"}).err, HasSubstr("JOB is missing"));
  EXPECT_THAT(ftrain({"run", "jb.toml"}).err, HasSubstr("job.toml"));
  EXPECT_EQ(ftrain({"run", "job.toml", "other"}).code, 2);
  EXPECT_EQ(ftrain({"run", "job.toml", "--set", "nothing"}).code, 2);
  EXPECT_EQ(ftrain({"run", "job.toml", "--fresh", "--resume"}).code, 2);
}

// A slip leaves nothing behind: the folder holds what it held.
TEST_F(Launch, SlipsInAJobSayWhereAndLeaveNothingBehind) {
  const struct {
    const char *from, *to;
    int code;
    std::vector<std::string> said;
  } slips[] = {
      {"plugin = \"cosface\"", "plugin = \"cosfase\"", 2, {"job.toml:12:1", "'cosface'"}},
      {"margin = 0.1", "margn = 0.1", 2, {"job.toml:14:1", "'margn' in [head]", "'margin'"}},
      {"margin = 0.1", "margin = \"wide\"", 2, {"job.toml:14:", "a number", "wide"}},
      {"[optimizer]", "[optimiser]", 2, {"job.toml:15:2", "Did you mean 'optimizer'"}},
      {"steps = 6", "step = 6", 2, {"[run]", "steps"}},
      {"steps = 6", "steps = = 6", 2, {"job.toml:35:"}},
      {"plugin = \"portraits\"", "plugin = \"recordio\"", 2, {"[dataset] path"}},
      {"image_size = 32", "image_size = 4", 2, {"job.toml:25:", "at least 8"}},
  };
  for (const auto& slip : slips) {
    std::string text = job;
    text.replace(text.find(slip.from), std::string(slip.from).size(), slip.to);
    write("job.toml", text);
    const Result result = ftrain({"run", "job.toml"});
    EXPECT_EQ(result.code, slip.code) << slip.to << ": " << result.err;
    EXPECT_THAT(result.err, StartsWith("error: "));
    for (const std::string& said : slip.said) EXPECT_THAT(result.err, HasSubstr(said)) << slip.to;
    EXPECT_THAT(entries(folder_), testing::ElementsAre("job.toml")) << slip.to;
  }
}

TEST_F(Launch, PlanAsJson) {
  const Result result = ftrain({"plan", "job.toml", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json plan = json::parse(result.out);
  EXPECT_EQ(plan["name"], "small");
  EXPECT_EQ(plan["classes"], 12);
  EXPECT_EQ(plan["steps"], 6);
  EXPECT_EQ(plan["batch"], 4);
  EXPECT_EQ(plan["steps_per_epoch"], 12);
  EXPECT_GT(plan["parameters"], 12 * 16);
  EXPECT_GT(plan["resident_bytes"], plan["state_bytes"]);
  std::size_t parts = 0, modules = 0;
  for (const char* part : {"resident_bytes", "arena_bytes", "evaluation_arena_bytes", "ring_bytes",
                           "checkpoint_bytes", "process_bytes"}) {
    parts += plan[part].get<std::size_t>();
  }
  EXPECT_EQ(plan["peak_memory_bytes"], parts);
  for (const json& module : plan["modules"]) modules += module["parameters"].get<std::size_t>();
  EXPECT_EQ(plan["parameters"], modules);
  ASSERT_FALSE(plan["kernels"].empty());
  for (const json& kernel : plan["kernels"]) {
    EXPECT_FALSE(kernel["op"].get<std::string>().empty());
    EXPECT_FALSE(kernel["kernel"].get<std::string>().empty());
    for (const json& refused : kernel["refused"]) {
      EXPECT_FALSE(refused["reason"].get<std::string>().empty()) << kernel;
    }
  }
  EXPECT_THAT(entries(folder_), testing::ElementsAre("job.toml"));
}

TEST_F(Launch, PlanInWords) {
  const Result result = ftrain({"plan", "job.toml", "--kernels", "--graph"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("u8[4, 32, 32, 3]"), HasSubstr("predicted peak"),
                                HasSubstr("class_center_forward"), HasSubstr("fetch loss"),
                                HasSubstr("fetch embedding"), HasSubstr("centers")));
}

TEST_F(Launch, PlanOfSeveralRanks) {
  const json one = json::parse(ftrain({"plan", "job.toml", "--json"}).out);
  for (const char* strategy : {"data_parallel", "model_parallel", "partial_fc"}) {
    const Result result = ftrain({"plan", "job.toml", "--json", "--set", "launch.processes=4",
                                  "--set", std::string("parallelism.plugin=") + strategy});
    ASSERT_EQ(result.code, 0) << strategy << ": " << result.err;
    const json four = json::parse(result.out);
    EXPECT_EQ(four["parameters"], one["parameters"]) << strategy;
    EXPECT_EQ(four["processes"], 4);
  }
}

TEST_F(Launch, PlanDoesWithoutTheData) {
  const std::vector<std::string> absent{"plan",
                                        "job.toml",
                                        "--json",
                                        "--set",
                                        "dataset.plugin=recordio",
                                        "--set",
                                        "dataset.path=nowhere/train.rec"};
  EXPECT_EQ(ftrain(absent).code, 3);
  std::vector<std::string> given = absent;
  given.insert(given.end(), {"--set", "dataset.classes=1000"});
  const Result result = ftrain(given);
  ASSERT_EQ(result.code, 0) << result.err;
  const json plan = json::parse(result.out);
  EXPECT_EQ(plan["classes"], 1000);
  EXPECT_TRUE(plan["steps_per_epoch"].is_null());
  EXPECT_THAT(plan["notes"].dump(), HasSubstr("classes = 1000"));
}

TEST_F(Launch, ResolvedJobResolvesToItself) {
  const Result first = ftrain({"config", "job.toml", "--set", "head.margin=0.2"});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out,
              AllOf(HasSubstr("margin = 0.2"), HasSubstr("momentum"), HasSubstr("prefetch = 4")));
  write("resolved.toml", first.out);
  const Result second = ftrain({"config", "resolved.toml"});
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_EQ(second.out, first.out);
}

TEST_F(Launch, PluginsByListAndByName) {
  const Result list = ftrain({"plugins"});
  ASSERT_EQ(list.code, 0) << list.err;
  for (const char* name : {"mobilefacenet", "cosface", "sgd", "portraits", "console", "jsonl"}) {
    EXPECT_THAT(list.out, HasSubstr(name));
  }
  const Result head = ftrain({"plugins", "cosface"});
  EXPECT_THAT(head.out, AllOf(HasSubstr("margin: number"), HasSubstr("default")));
  const Result both = ftrain({"plugins", "portraits"});
  EXPECT_THAT(both.out, AllOf(HasSubstr("dataset portraits"), HasSubstr("verify portraits")));
  const Result tables = ftrain({"plugins", "job"});
  for (const char* key : {"seed", "stop_at", "keep", "processes", "on_corrupt", "folds", "centers"})
    EXPECT_THAT(tables.out, HasSubstr(key));
  const json keys = json::parse(ftrain({"plugins", "run", "--json"}).out);
  EXPECT_EQ(keys["plugins"][0]["keys"][0]["name"], "steps");
  const Result slip = ftrain({"plugins", "cosfase"});
  EXPECT_EQ(slip.code, 2);
  EXPECT_THAT(slip.err, HasSubstr("'cosface'"));
}

TEST_F(Launch, RefusedLibrariesAreListed) {
  write("broken.so", "no library");
  const Result result = ftrain({"plugins", "--path", "."});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, AllOf(HasSubstr("refused libraries"), HasSubstr("broken.so")));
}

TEST_F(Launch, DataInWordsAndOnASheet) {
  const Result info = ftrain({"data", "info", "job.toml"});
  ASSERT_EQ(info.code, 0) << info.err;
  EXPECT_THAT(info.out, AllOf(HasSubstr("images: 48"), HasSubstr("classes: 12"),
                              HasSubstr("verification set portraits")));
  const Result show =
      ftrain({"data", "show", "job.toml", "--out", "sheet.png", "--count", "12", "--columns", "4"});
  ASSERT_EQ(show.code, 0) << show.err;
  // Three labels, all four samples of each.
  EXPECT_THAT(show.out, AllOf(HasSubstr("label 0: 0 1 2 3\n"), HasSubstr("label 4: 16 17 18 19\n"),
                              HasSubstr("label 8: 32 33 34 35\n")));
  const std::string png = read_text(folder_ / "sheet.png");
  ASSERT_GT(png.size(), 24u);
  const auto extent = [&](std::size_t at) {
    return static_cast<unsigned char>(png[at + 2]) << 8 | static_cast<unsigned char>(png[at + 3]);
  };
  EXPECT_EQ(extent(16), 4 + 4 * (32 + 4));
  EXPECT_EQ(extent(20), 4 + 3 * (32 + 4));
  EXPECT_EQ(ftrain({"data", "shw", "job.toml"}).code, 2);
  EXPECT_EQ(ftrain({"data", "show", "job.toml"}).code, 2);
}

TEST_F(Launch, VerifyMeasuresWhatTrainingMeasured) {
  ASSERT_EQ(ftrain(run("a")).code, 0);
  const json trained = summary("a")["accuracy"];
  const Result result = ftrain({"verify", "job.toml", "--set", "run.folder=runs/a", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out)["accuracy"], trained);
  EXPECT_EQ(json::parse(result.out)["step"], 6);
  const Result words = ftrain({"verify", "job.toml", "--set", "run.folder=runs/a"});
  EXPECT_THAT(words.out, AllOf(HasSubstr("portraits: accuracy"), HasSubstr("TAR@FAR")));
  EXPECT_EQ(ftrain({"verify", "job.toml", "--set", "run.folder=runs/b"}).code, 3);
  EXPECT_EQ(ftrain({"verify", "job.toml", "--weights", "none.safetensors"}).code, 3);
}

}  // namespace
}  // namespace launch_test
