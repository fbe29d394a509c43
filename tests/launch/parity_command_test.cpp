// `ftrain parity` on a small job: what it says when parallelisms agree, and when they do not.
#include <gmock/gmock.h>

#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

class Parity : public Launch {
 protected:
  Result parity(const std::vector<std::string>& more) const {
    // A network this small amplifies rounding at larger rates.
    std::vector<std::string> words{
        "parity", "job.toml", "--batch", "8",     "--steps",
        "3",      "--rate",   "0.00001", "--set", "run.folder=runs/never"};
    words.insert(words.end(), more.begin(), more.end());
    return ftrain(words);
  }
  // The run folder was left alone and nothing lies about.
  void expect_no_traces() const {
    EXPECT_FALSE(fs::exists(run_folder("never")));
    for (const auto& entry : fs::directory_iterator(fs::temp_directory_path())) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with("ftrain-parity-runs-")) continue;
      // Other runs may be going on.
      const int owner = std::stoi(name.substr(std::string("ftrain-parity-runs-").size()));
      EXPECT_TRUE(::kill(owner, 0) == 0 || !fs::exists(entry.path())) << name;
    }
  }
};

TEST_F(Parity, EveryParallelismIsTheSameTraining) {
  const Result result = parity({});
  EXPECT_EQ(result.code, 0) << result.out << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("small: 3 steps of 8 samples at rate 1e-05"),
                    HasSubstr("tolerance 1e-05"), ContainsRegex("data_parallel +1 .* - +- +-\n"),
                    ContainsRegex("model_parallel +4 +[0-9.]+ +[0-9.e-]+ "),
                    ContainsRegex("partial_fc, all +2 "),
                    HasSubstr("the same training: 9 runs agree"), Not(HasSubstr("differs\n"))));
  EXPECT_EQ(result.err, "");
  expect_no_traces();
}

TEST_F(Parity, ASampleIsComparedWithItsOwnFirstRow) {
  const Result result =
      parity({"--json", "--ranks", "1,2", "--set", "parallelism.plugin=partial_fc", "--set",
              "parallelism.sample_rate=0.5"});
  ASSERT_EQ(result.code, 0) << result.out << result.err;
  const json told = json::parse(result.out);
  EXPECT_EQ(told["same"], true);
  EXPECT_EQ(told["global_batch"], 8);
  ASSERT_EQ(told["rows"].size(), 8u);
  const json &whole = told["rows"][0], &first = told["rows"][6], &second = told["rows"][7];
  EXPECT_EQ(whole["parallelism"], "data_parallel");
  EXPECT_EQ(whole["reference"], true);
  EXPECT_EQ(first["parallelism"], "partial_fc");
  EXPECT_EQ(first["sampled"], true);
  EXPECT_EQ(first["reference"], true);
  EXPECT_EQ(second["ranks"], 2);
  EXPECT_LT(second["loss_difference"].get<double>(), 1e-5);
  // Half of the classes are not all of them: the comparison sees what differs.
  const double all = whole["last_loss"], half = first["last_loss"];
  EXPECT_GT(std::abs(all - half), 1e-3 * all);
}

TEST_F(Parity, WhatDiffersIsToldAndFails) {
  const Result result = parity({"--ranks", "1,2", "--tolerance", "0"});
  EXPECT_EQ(result.code, 4) << result.out;
  EXPECT_THAT(result.out, AllOf(HasSubstr("differs\n"), HasSubstr("rate x 1.00001"),
                                HasSubstr("not the same training: 3 of 6 runs")));
  expect_no_traces();
}

TEST_F(Parity, AnInterruptedComparisonLeavesNothing) {
  Program program(folder_, {"parity", "job.toml", "--batch", "8", "--steps", "100000"});
  const fs::path folder =
      fs::temp_directory_path() / ("ftrain-parity-runs-" + std::to_string(program.process()));
  while (program.running() && !fs::exists(folder / "environment.json")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  program.signal(SIGINT);
  EXPECT_EQ(program.wait().code, 130);
  EXPECT_FALSE(fs::exists(folder));
}

TEST_F(Parity, WrongWordsAreRefused) {
  const Result uneven = parity({"--ranks", "1,3"});
  EXPECT_EQ(uneven.code, 2);
  EXPECT_THAT(uneven.err, HasSubstr("8 samples, which 3 ranks cannot share evenly"));
  const Result word = parity({"--ranks", "1,two"});
  EXPECT_EQ(word.code, 2);
  EXPECT_THAT(word.err, HasSubstr("got 'two'"));
  const Result none = parity({"--set", "dataset.plugin=folder", "--set", "dataset.path=nowhere"});
  EXPECT_NE(none.code, 0);
  EXPECT_EQ(none.code, 3) << none.err;
  expect_no_traces();
}

}  // namespace
}  // namespace launch_test
