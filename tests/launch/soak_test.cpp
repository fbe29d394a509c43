// Ranks that are killed at random instants, again and again: the job always ends with the weights
// of one that nobody disturbed. FTRAIN_SOAK_KILLS says how many kills (tests/soak: 200).
#include <gmock/gmock.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "launch/processes.h"
#include "launch/program.h"

namespace launch_test {
namespace {

using std::chrono::milliseconds;

class Soak : public Launch {
 protected:
  static int kills_wanted() {
    const char* wanted = std::getenv("FTRAIN_SOAK_KILLS");
    return wanted ? std::atoi(wanted) : 4;
  }
  static std::vector<std::string> job_words(const std::string& name) {
    return run(name, {"--set", "launch.processes=3", "--set", "launch.communicator=mpi", "--set",
                      "launch.max_restarts=1000", "--set", "parallelism.plugin=model_parallel",
                      "--set", "run.steps=60", "--set", "checkpoint.every=7", "--set",
                      "device.autotune=false", "--set", "dataset.threads=1"});
  }
  // Every file of the last checkpoint, by name.
  std::map<std::string, std::string> weights(const std::string& name) const {
    std::map<std::string, std::string> files;
    const fs::path last = run_folder(name) / "checkpoints" / "step-00000060";
    for (const auto& entry : fs::directory_iterator(last)) {
      files[entry.path().filename().string()] = read_text(entry.path());
    }
    return files;
  }
};

TEST_F(Soak, KilledRanksEndWithTheSameWeights) {
  if (std::system("command -v mpirun > /dev/null") != 0) GTEST_SKIP() << "there is no mpirun";
  const Result undisturbed = ftrain(job_words("reference"));
  ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
  const auto expected = weights("reference");
  ASSERT_FALSE(expected.empty());
  const auto steps_expected = metrics("reference");

  std::mt19937 random(std::random_device{}());
  int kills = 0, jobs = 0;
  while (kills < kills_wanted()) {
    const std::string name = "disturbed";
    fs::remove_all(run_folder(name));
    Program program(folder_, job_words(name));
    for (int more = std::uniform_int_distribution(1, 4)(random); more > 0 && kills < kills_wanted();
         --more) {
      std::this_thread::sleep_for(milliseconds(std::uniform_int_distribution(0, 2500)(random)));
      if (!program.running()) break;
      const std::map<int, pid_t> ranks = ranks_below(program.process());
      if (ranks.empty()) continue;  // between two starts
      const auto victim = std::next(ranks.begin(), std::uniform_int_distribution<std::ptrdiff_t>(
                                                       0, std::ssize(ranks) - 1)(random));
      if (::kill(victim->second, SIGKILL) == 0) ++kills;
    }
    const Result result = program.wait();
    ASSERT_EQ(result.code, 0) << "after " << kills << " kills:\n" << result.err;
    ASSERT_TRUE(weights(name) == expected) << "after " << kills << " kills:\n" << result.err;
    EXPECT_EQ(metrics(name), steps_expected) << "after " << kills << " kills";
    ++jobs;
  }
  std::cout << kills << " kills over " << jobs << " jobs\n";
}

}  // namespace
}  // namespace launch_test
