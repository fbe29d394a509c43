// What happens to a job of several processes when something goes wrong: it ends within seconds, one
// line names the rank and the reason, and nothing that was saved is lost.
#include <gmock/gmock.h>
#include <sys/mount.h>

#include <cstdlib>

#include "launch/processes.h"
#include "launch/program.h"

namespace launch_test {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;

class Failures : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    if (std::system("command -v mpirun > /dev/null") != 0) GTEST_SKIP() << "there is no mpirun";
  }
  static std::vector<std::string> three(const std::string& name,
                                        const std::vector<std::string>& sets) {
    std::vector<std::string> words = run(name);
    std::vector<std::string> all{"launch.processes=3",
                                 "launch.communicator=mpi",
                                 "device.autotune=false",
                                 "dataset.threads=1",
                                 "checkpoint.every=5",
                                 "verify.sets=[]",
                                 "parallelism.plugin=model_parallel"};
    all.insert(all.end(), sets.begin(), sets.end());
    for (const std::string& set : all) {
      words.emplace_back("--set");
      words.push_back(set);
    }
    return words;
  }
  // How often a text stands in another.
  static std::size_t count(const std::string& text, const std::string& what) {
    std::size_t found = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
    return found;
  }
};

TEST_F(Failures, AHungRankIsFoundAndNamed) {
  Program program(folder_,
                  three("a", {"run.steps=100000", "launch.timeout=5", "checkpoint.keep=100000"}));
  // The checkpoint is written beside the steps behind it.
  const fs::path saved = run_folder("a") / "checkpoints" / "step-00000005" / "manifest.json";
  while (program.running() && !fs::exists(saved)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // Ranks say once a second how far they are.
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const auto ranks = ranks_below(program.process());
  ASSERT_EQ(ranks.size(), 3u);
  ::kill(ranks.at(2), SIGSTOP);
  const Result result = program.wait();
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("error: CommunicationError: rank 2 on "),
                                HasSubstr("the last operation that it finished")));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
  EXPECT_EQ(summary("a")["state"], "failed");
  EXPECT_TRUE(fs::exists(saved));
}

TEST_F(Failures, AHungRankIsReplacedByARestart) {
  const std::vector<std::string> sets{"run.steps=120", "launch.timeout=5", "launch.max_restarts=1"};
  ASSERT_EQ(ftrain(three("whole", sets)).code, 0);
  Program program(folder_, three("parts", sets));
  ASSERT_TRUE(wait_for_lines(program, "parts", 7));
  const auto ranks = ranks_below(program.process());
  ASSERT_EQ(ranks.size(), 3u);
  ::kill(ranks.at(1), SIGSTOP);
  const Result result = program.wait();
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("rank 1 on "), HasSubstr("restart 1 of 1")));
  EXPECT_EQ(metrics("parts"), metrics("whole"));
}

TEST_F(Failures, ALostFileOnOneRankIsNamed) {
  fs::create_directories(folder_ / "faces");
  for (int person = 0; person < 12; ++person) {
    const fs::path home = folder_ / "faces" / ("person" + std::to_string(person));
    fs::create_directories(home);
    for (int i = 0; i < 2; ++i) {
      std::string image = "P6\n32 32\n255\n" + std::string(32 * 32 * 3, static_cast<char>(person));
      std::ofstream(home / (std::to_string(i) + ".ppm"), std::ios::binary) << image;
    }
  }
  std::string text = job;
  const auto begin = text.find("[dataset]");
  text.replace(begin, text.find("[verify]") - begin,
               "[dataset]\nplugin = \"folder\"\npath = \"faces\"\nimage_size = 32\nbatch = 2\n");
  write("job.toml", text);
  Program program(folder_, three("a", {"run.steps=100000"}));
  ASSERT_TRUE(wait_for_lines(program, "a", 7));
  fs::remove(folder_ / "faces" / "person7" / "1.ppm");
  const Result result = program.wait();
  EXPECT_EQ(result.code, 3) << result.err;
  EXPECT_THAT(result.err, ContainsRegex("error: .*rank [0-2] on .*DataError: .*person7/1.ppm"));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
  EXPECT_EQ(summary("a")["state"], "failed");
}

TEST_F(Failures, AFolderThatCannotBeMadeIsOneClearError) {
  std::vector<std::string> words = three("a", {"run.folder=/proc/ftrain"});
  const Result result = ftrain(words);
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("/proc/ftrain"), HasSubstr("can be written")));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
}

// A file system that is full, and one that cannot be written any more.
class SmallDisk : public Failures {
 protected:
  void SetUp() override {
    Failures::SetUp();
    if (IsSkipped()) return;
    fs::create_directories(disk());
    if (::mount("tmpfs", disk().c_str(), "tmpfs", 0, "size=16m") != 0) {
      GTEST_SKIP() << "file systems cannot be mounted here";
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) ::umount2(disk().c_str(), MNT_DETACH);
    Failures::TearDown();
  }
  fs::path disk() const { return folder_ / "disk"; }
  std::vector<std::string> on_disk(std::vector<std::string> sets) const {
    sets.push_back("run.folder=" + (disk() / "a").string());
    sets.emplace_back("run.steps=100000");
    return three("a", sets);
  }
  std::size_t lines() const { return lines_of(disk() / "a" / "metrics.jsonl"); }
  // Waits until a checkpoint is whole.
  bool first_checkpoint(Program& program) const {
    while (!fs::exists(disk() / "a" / "checkpoints" / "step-00000005" / "manifest.json")) {
      if (!program.running()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }
  bool mounted_ = false;
};

TEST_F(SmallDisk, ThatIsFullEndsTheJobAndLeavesOlderCheckpoints) {
  Program program(folder_, on_disk({"checkpoint.keep=1000"}));
  const Result result = program.wait();
  EXPECT_EQ(result.code, 3) << result.err;
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("No space left on device"), HasSubstr("free some space")));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
  std::size_t whole = 0;
  for (const auto& entry : fs::directory_iterator(disk() / "a" / "checkpoints")) {
    EXPECT_THAT(entry.path().filename().string(), testing::StartsWith("step-"));
    whole += fs::exists(entry.path() / "manifest.json");
  }
  EXPECT_GT(whole, 0u);
}

TEST_F(SmallDisk, ThatCannotBeWrittenAnyMoreEndsTheJob) {
  Program program(folder_, on_disk({"checkpoint.keep=1000"}));
  ASSERT_TRUE(first_checkpoint(program));
  // As a disk does after an error.
  const fs::path checkpoints = disk() / "a" / "checkpoints";
  ASSERT_EQ(::mount("tmpfs", checkpoints.c_str(), "tmpfs", MS_RDONLY, "size=64k"), 0);
  const Result result = program.wait();
  ::umount2(checkpoints.c_str(), MNT_DETACH);
  EXPECT_EQ(result.code, 3) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("Read-only file system"), HasSubstr("can be written")));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
  EXPECT_TRUE(fs::exists(checkpoints / "step-00000005" / "manifest.json"));
}

}  // namespace
}  // namespace launch_test
