// Training by the command line: the run folder, stopping and continuing, ranks, bad input.
#include <gmock/gmock.h>

#include <cstring>

#include "ftrain/data/image.h"
#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(Launch, RunFolderHoldsWhatIsPromised) {
  const Result result = ftrain(run("a"));
  ASSERT_EQ(result.code, 0) << result.err;
  const fs::path folder = run_folder("a");
  for (const char* name : {"job.toml", "environment.json", "log.txt", "metrics.jsonl",
                           "summary.json", "checkpoints/step-00000006/manifest.json"}) {
    EXPECT_TRUE(fs::exists(folder / name)) << name;
  }
  EXPECT_THAT(result.err, AllOf(HasSubstr("step 6/6"), HasSubstr("samples/s"),
                                HasSubstr("accuracy on portraits"), HasSubstr("runs/a")));

  const json s = summary("a");
  EXPECT_EQ(s["name"], "small");
  EXPECT_EQ(s["state"], "done");
  EXPECT_EQ(s["steps"], 6);
  EXPECT_DOUBLE_EQ(s["epochs"].get<double>(), 0.5);
  EXPECT_GT(s["peak_memory_bytes"], 0);
  EXPECT_GT(s["samples_per_second"], 0);
  EXPECT_GT(s["seconds_to_first_step"], 0);
  const json& accuracy = s["accuracy"]["portraits"];
  for (const char* key : {"mean", "deviation", "threshold", "xnorm"}) {
    EXPECT_TRUE(accuracy[key].is_number()) << key;
  }
  EXPECT_TRUE(accuracy["tar"].is_object());
  EXPECT_EQ(s["best"], accuracy["mean"]);

  std::ifstream file(folder / "metrics.jsonl");
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  ASSERT_EQ(lines.size(), 7u);  // six steps, one verification
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(lines[i]["step"], i + 1);
    for (const char* key :
         {"epoch", "loss", "rate", "gradient_norm", "samples_per_second", "data_wait"}) {
      EXPECT_TRUE(lines[i][key].is_number()) << key;
    }
  }
  EXPECT_EQ(lines[6]["accuracy"], s["accuracy"]);
  EXPECT_EQ(lines[5]["loss"], s["loss"]);
}

TEST_F(Launch, ResolvedJobOfARunFolderTrainsTheSame) {
  ASSERT_EQ(ftrain(run("a")).code, 0);
  const Result again =
      ftrain({"run", (run_folder("a") / "job.toml").string(), "--set", "run.folder=runs/b"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(metrics("b"), metrics("a"));
}

TEST_F(Launch, FinishedRunsAreNotTrainedAgainUnlessFresh) {
  ASSERT_EQ(ftrain(run("a")).code, 0);
  const auto before = metrics("a");
  const Result again = ftrain(run("a"));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("continuing from"));
  EXPECT_EQ(metrics("a"), before);
  const Result fresh = ftrain(run("a", {"--fresh", "--set", "seed=8"}));
  EXPECT_EQ(fresh.code, 0) << fresh.err;
  EXPECT_EQ(metrics("a").size(), before.size());
  EXPECT_NE(metrics("a"), before);
}

TEST_F(Launch, ResumeNeedsACheckpoint) {
  const Result result = ftrain(run("a", {"--resume"}));
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("no sound checkpoint"));
  EXPECT_FALSE(fs::exists(run_folder("a")));
}

TEST_F(Launch, StoppedAtAStepContinuesToTheSameBits) {
  ASSERT_EQ(ftrain(run("whole")).code, 0);
  ASSERT_EQ(ftrain(run("parts", {"--set", "run.stop_at=2"})).code, 0);
  EXPECT_EQ(summary("parts")["state"], "done");
  ASSERT_EQ(ftrain(run("parts", {"--resume"})).code, 0);
  EXPECT_EQ(metrics("parts"), metrics("whole"));
}

// Each class center counts its own updates: those are saved too.
TEST_F(Launch, StoppedAtAStepContinuesWithAdamWToTheSameBits) {
  const auto with = [&](const std::string& name, const std::string& steps,
                        std::vector<std::string> more) {
    for (const std::string& key :
         {std::string("optimizer.plugin=adamw"), std::string("optimizer.rate=0.001"),
          "optimizer.center_steps=" + steps, std::string("parallelism.plugin=partial_fc"),
          std::string("parallelism.sample_rate=0.2")}) {
      more.insert(more.end(), {"--set", key});
    }
    return run(name, more);
  };
  ASSERT_EQ(ftrain(with("whole", "row", {})).code, 0);
  ASSERT_EQ(ftrain(with("parts", "row", {"--set", "run.stop_at=2"})).code, 0);
  ASSERT_EQ(ftrain(with("parts", "row", {})).code, 0);
  EXPECT_EQ(metrics("parts"), metrics("whole"));
  ASSERT_EQ(ftrain(with("global", "global", {})).code, 0);
  EXPECT_NE(metrics("global"), metrics("whole"));
}

TEST_F(Launch, InterruptedRunsContinueToTheSameBits) {
  const std::vector<std::string> longer{"--set", "run.steps=120"};
  ASSERT_EQ(ftrain(run("whole", longer)).code, 0);
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, {SIGTERM, 143}}) {
    const std::string name = "parts" + std::to_string(signal);
    Program program(folder_, run(name, longer));
    ASSERT_TRUE(wait_for_lines(program, name, 5));
    program.signal(signal);
    const Result stopped = program.wait();
    ASSERT_EQ(stopped.code, code) << stopped.err;
    EXPECT_THAT(stopped.err, HasSubstr("interrupted"));
    EXPECT_EQ(summary(name)["state"], "interrupted");
    const std::size_t done = summary(name)["steps"];
    EXPECT_EQ(metrics(name).size(), done);
    const Result rest = ftrain(run(name, longer));
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_THAT(rest.err, HasSubstr("continuing from"));
    EXPECT_EQ(metrics(name), metrics("whole"));
    EXPECT_EQ(summary(name)["accuracy"], summary("whole")["accuracy"]);
  }
}

TEST_F(Launch, KilledRunsContinueToTheSameBits) {
  const std::vector<std::string> longer{"--set", "run.steps=100",  "--set", "checkpoint.every=20",
                                        "--set", "verify.every=50"};
  ASSERT_EQ(ftrain(run("whole", longer)).code, 0);
  for (const std::size_t lines : {10u, 45u}) {  // before and after the first checkpoint
    const std::string name = "parts" + std::to_string(lines);
    Program program(folder_, run(name, longer));
    ASSERT_TRUE(wait_for_lines(program, name, lines));
    program.signal(SIGKILL);
    EXPECT_EQ(program.wait().code, 128 + SIGKILL);
    const Result rest = ftrain(run(name, longer));
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_EQ(metrics(name), metrics("whole"));
    EXPECT_EQ(summary(name)["accuracy"], summary("whole")["accuracy"]);
    EXPECT_EQ(summary(name)["loss"], summary("whole")["loss"]);
  }
}

TEST_F(Launch, RanksOfOneProcessFollowOneRank) {
  // Small, clipped steps: a network this small amplifies rounding quickly.
  const std::vector<std::string> shared{"--set", "parallelism.plugin=model_parallel",
                                        "--set", "parallelism.batch_norm=global",
                                        "--set", "optimizer.rate=0.001",
                                        "--set", "optimizer.clip=1.0"};
  std::vector<std::string> one = shared, two = shared;
  one.insert(one.end(), {"--set", "dataset.batch=16"});
  two.insert(two.end(), {"--set", "dataset.batch=8", "--set", "launch.processes=2", "--set",
                         "launch.communicator=local"});
  ASSERT_EQ(ftrain(run("one", one)).code, 0);
  const Result result = ftrain(run("two", two));
  ASSERT_EQ(result.code, 0) << result.err;
  const auto a = metrics("one"), b = metrics("two");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < 6; ++i) {
    const double loss = a[i]["loss"];
    EXPECT_NEAR(b[i]["loss"].get<double>(), loss, (i == 0 ? 1e-5 : 1e-3) * loss)
        << "step " << i + 1;
  }
}

TEST_F(Launch, FailureOfAnyRankIsToldOnce) {
  const Result result =
      ftrain(run("a", {"--set", "launch.processes=2", "--set", "launch.communicator=local", "--set",
                       "init.backbone=none.safetensors"}));
  EXPECT_EQ(result.code, 3) << result.err;
  EXPECT_THAT(result.err, HasSubstr("none.safetensors"));
  EXPECT_FALSE(fs::exists(run_folder("a")));
}

TEST_F(Launch, WeightsOfAnotherWidthAreRefused) {
  ASSERT_EQ(ftrain(run("a")).code, 0);
  const fs::path weights = run_folder("a") / "checkpoints/step-00000006/rank-0.safetensors";
  ASSERT_TRUE(fs::exists(weights));
  const Result result = ftrain(
      run("b", {"--set", "init.backbone=" + weights.string(), "--set", "backbone.embedding=24"}));
  EXPECT_EQ(result.code, 3) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("16"), HasSubstr("24"), HasSubstr("embedding")));
  EXPECT_FALSE(fs::exists(run_folder("b")));
  // A checkpoint of another width is no continuation either.
  const Result other = ftrain(run("a", {"--set", "backbone.embedding=24"}));
  EXPECT_EQ(other.code, 3) << other.err;
}

// As on a full disk: the checkpoint cannot be written.
TEST_F(Launch, FullDiskAtACheckpointLeavesTheOlderOne) {
  ASSERT_EQ(ftrain(run("a", {"--set", "run.stop_at=2"})).code, 0);
  const Result full = ftrain(run("a"), 64 * 1024);
  EXPECT_EQ(full.code, 3) << full.err;
  EXPECT_THAT(full.err, HasSubstr("cannot write"));
  EXPECT_EQ(summary("a")["state"], "failed");
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(run_folder("a") / "checkpoints")) {
    if (entry.is_directory()) left.push_back(entry.path().filename().string());
  }
  EXPECT_THAT(left, testing::ElementsAre("step-00000002"));
  ASSERT_EQ(ftrain(run("a")).code, 0);
  ASSERT_EQ(ftrain(run("whole")).code, 0);
  EXPECT_EQ(metrics("a"), metrics("whole"));
}

// A verification file is a pickle, and a pickle can ask for anything to be run.
TEST_F(Launch, HostilePicklesRunNothing) {
  write("evil.bin", "cos\nsystem\n(S'touch owned'\ntR.");
  const Result result = ftrain(run("a", {"--set", "verify.sets=[\"evil.bin\"]"}));
  EXPECT_EQ(result.code, 3) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("evil.bin"), HasSubstr("system")));
  EXPECT_FALSE(fs::exists(folder_ / "owned"));
  EXPECT_FALSE(fs::exists(run_folder("a")));
}

// A .rec file of `labels.size()` small JPEGs, `corrupt` of them damaged.
class RecordRun : public Launch {
 protected:
  void records(const std::vector<float>& labels, std::size_t corrupt = SIZE_MAX) const {
    std::string file;
    const auto put = [&file](auto value) {
      file.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    for (std::size_t i = 0; i < labels.size(); ++i) {
      ftrain::Image image{32, 32, std::vector<std::uint8_t>(32 * 32 * 3)};
      for (std::size_t p = 0; p < image.pixels.size(); ++p) {
        image.pixels[p] = static_cast<std::uint8_t>(p * (i + 3));
      }
      auto jpeg = ftrain::encode_jpeg(image, 90);
      if (i == corrupt) jpeg.resize(jpeg.size() / 3);
      put(std::uint32_t{0xced7230a});
      put(static_cast<std::uint32_t>(24 + jpeg.size()));
      put(std::uint32_t{0});
      put(labels[i]);
      put(std::uint64_t{i});
      put(std::uint64_t{0});
      file.append(jpeg.begin(), jpeg.end());
      file.resize((file.size() + 3) / 4 * 4);
    }
    write("train.rec", file);
  }
  static std::vector<std::string> run_records(const std::vector<std::string>& more = {}) {
    std::vector<std::string> words =
        run("a", {"--set", "dataset.plugin=recordio", "--set", "dataset.path=train.rec"});
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
};

TEST_F(RecordRun, MissingDataNameWhatIsNear) {
  records({0, 1});
  const Result result = ftrain(run_records({"--set", "dataset.path=trian.rec"}));
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, AllOf(StartsWith("error: DataError:"), HasSubstr("train.rec")));
  EXPECT_FALSE(fs::exists(run_folder("a")));
}

TEST_F(RecordRun, CorruptImagesStopTheRunOrAreSkipped) {
  records({0, 1, 2, 3, 0, 1, 2, 3}, 5);
  const Result stopped = ftrain(run_records());
  EXPECT_EQ(stopped.code, 3) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("record 5"));
  EXPECT_EQ(summary("a")["state"], "failed");
  const Result skipped = ftrain(run_records({"--fresh", "--set", "dataset.on_corrupt=skip"}));
  EXPECT_EQ(skipped.code, 0) << skipped.err;
  EXPECT_EQ(summary("a")["state"], "done");
  EXPECT_EQ(summary("a")["skipped_samples"], 3);  // once an epoch of two steps
}

TEST_F(RecordRun, LabelsOutOfRangeAndTruncatedFilesAreRefused) {
  records({0, 1, 2, 3});
  const Result label = ftrain(run_records({"--set", "dataset.classes=3"}));
  EXPECT_EQ(label.code, 3);
  EXPECT_THAT(label.err, AllOf(HasSubstr("record 3"), HasSubstr("label 3")));
  EXPECT_FALSE(fs::exists(run_folder("a")));
  fs::resize_file(folder_ / "train.rec", fs::file_size(folder_ / "train.rec") - 40);
  const Result cut = ftrain(run_records());
  EXPECT_EQ(cut.code, 3);
  EXPECT_THAT(cut.err, HasSubstr("record 3"));
  EXPECT_FALSE(fs::exists(run_folder("a")));
}

}  // namespace
}  // namespace launch_test
