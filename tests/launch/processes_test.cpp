// Ranks that are processes: the losses of ranks that are threads, one stream of output, signals,
// deaths and restarts. What else can go wrong is in failures_test.cpp.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <cstdlib>

#include "launch/processes.h"
#include "launch/program.h"

namespace launch_test {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

class Processes : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    if (std::system("command -v mpirun > /dev/null") != 0) GTEST_SKIP() << "there is no mpirun";
  }
  static std::vector<std::string> ranks(int number, const std::string& name,
                                        const std::vector<std::string>& sets = {}) {
    std::vector<std::string> words = run(name);
    std::vector<std::string> all{"launch.processes=" + std::to_string(number),
                                 "device.autotune=false", "dataset.threads=1", "verify.sets=[]",
                                 "parallelism.plugin=model_parallel"};
    all.insert(all.end(), sets.begin(), sets.end());
    for (const std::string& set : all) {
      words.emplace_back("--set");
      words.push_back(set);
    }
    return words;
  }
  // Every file of a checkpoint, by name.
  std::map<std::string, std::string> checkpoint(const std::string& name,
                                                const std::string& step) const {
    std::map<std::string, std::string> files;
    for (const auto& entry :
         fs::directory_iterator(run_folder(name) / "checkpoints" / ("step-" + step))) {
      files[entry.path().filename().string()] = read_text(entry.path());
    }
    return files;
  }
  void expect_same_losses(const std::string& a, const std::string& b) const {
    const auto left = metrics(a), right = metrics(b);
    ASSERT_EQ(left.size(), right.size());
    for (std::size_t i = 0; i < left.size(); ++i) {
      const double loss = left[i].at("loss");
      EXPECT_NEAR(right[i].at("loss").get<double>(), loss, 1e-4 * loss) << "step " << i + 1;
    }
  }
  // Once it has run on for so many steps, and all its ranks are there.
  std::map<int, pid_t> running_ranks(Program& program, const std::string& name,
                                     std::size_t lines) const {
    if (!wait_for_lines(program, name, lines)) return {};
    return ranks_below(program.process());
  }
  // Temporary files of mpirun are under the test's own folder.
  std::vector<std::string> in_own_folder() const {
    fs::create_directories(folder_ / "tmp");
    return {"env", "TMPDIR=" + (folder_ / "tmp").string()};
  }
};

TEST_F(Processes, GiveTheLossesOfThreadsInOneStream) {
  for (const int number : {2, 3}) {
    const std::string of = std::to_string(number);
    ASSERT_EQ(ftrain(ranks(number, "threads" + of, {"launch.communicator=local"})).code, 0);
    const Result result =
        Program(folder_, ranks(number, "processes" + of), 0, in_own_folder()).wait();
    ASSERT_EQ(result.code, 0) << result.err;
    expect_same_losses("threads" + of, "processes" + of);
    EXPECT_EQ(result.out, "");
    for (const char* once : {"step 6/6", "small: done", "run folder:", "checkpoint at step 6"}) {
      EXPECT_EQ(count(result.err, once), 1u) << once << "\n" << result.err;
    }
    EXPECT_THAT(result.err, AllOf(HasSubstr("ranks: " + of + " on 1 machine"),
                                  Not(HasSubstr("mpirun")), Not(HasSubstr("warning"))));
    EXPECT_THAT(read_text(run_folder("processes" + of) / "job.toml"),
                HasSubstr("processes = " + of));
    EXPECT_TRUE(fs::is_empty(folder_ / "tmp"));
  }
}

TEST_F(Processes, AskedForAsThreadsAreThreads) {
  const Result result = ftrain(ranks(2, "a", {"launch.communicator=local", "run.steps=2"}));
  EXPECT_EQ(result.code, 0) << result.err;
  // Without mpirun they are threads too, and a line says so.
  const Result without =
      Program(folder_, ranks(2, "b", {"run.steps=2"}), 0, {"env", "PATH=/"}).wait();
  EXPECT_EQ(without.code, 0) << without.err;
  EXPECT_THAT(without.err, HasSubstr("2 ranks as threads of this process: mpirun is not there"));
  EXPECT_EQ(metrics("a"), metrics("b"));
  const Result hosts =
      Program(folder_, ranks(2, "c", {"launch.hosts=[\"a:2\"]"}), 0, {"env", "PATH=/"}).wait();
  EXPECT_EQ(hosts.code, 2) << hosts.err;
  EXPECT_THAT(hosts.err, HasSubstr("mpirun, which is in no folder of PATH"));
}

TEST_F(Processes, ThatMakeNoSenseAreRefusedOnce) {
  const auto refused = [this](const std::string& set) {
    const Result result = ftrain(ranks(2, "a", {set}));
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
    return result.err;
  };
  EXPECT_THAT(refused("launch.hosts=[\"a:x\"]"), HasSubstr("'a:x' is no host"));
  EXPECT_THAT(refused("launch.hosts=[\"a\"]"), HasSubstr("room for 1 ranks"));
  EXPECT_THAT(refused("launch.communicator=smoke"), HasSubstr("smoke"));
  EXPECT_THAT(refused("head.margn=1"), HasSubstr("'margin'"));
}

TEST_F(Processes, OneThatIsKilledIsNamedAndEndsTheJob) {
  Program program(folder_, ranks(3, "a", {"run.steps=100000", "checkpoint.every=5"}));
  const auto found = running_ranks(program, "a", 7);
  ASSERT_EQ(found.size(), 3u);
  ::kill(found.at(2), SIGKILL);
  const Result result = program.wait();
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_THAT(result.err, ContainsRegex("error: CommunicationError: rank 2 on [^ ]+ was killed by "
                                        "signal 9 \\(Killed\\)"));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
  EXPECT_THAT(result.err, Not(HasSubstr("mpirun")));
  EXPECT_EQ(summary("a")["state"], "failed");
}

TEST_F(Processes, TheFirstOneKilledLeavesASummaryToo) {
  Program program(folder_, ranks(2, "a", {"run.steps=100000"}));
  const auto found = running_ranks(program, "a", 3);
  ASSERT_EQ(found.size(), 2u);
  ::kill(found.at(0), SIGKILL);
  const Result result = program.wait();
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_THAT(result.err, HasSubstr("error: CommunicationError: rank 0 on "));
  EXPECT_EQ(summary("a")["state"], "failed");
}

TEST_F(Processes, KilledOnesAreStartedAgainToTheSameBits) {
  const std::vector<std::string> sets{"run.steps=60", "checkpoint.every=7",
                                      "launch.max_restarts=3"};
  ASSERT_EQ(ftrain(ranks(2, "whole", sets)).code, 0);
  // What another job has left there is not gone on from, and --fresh counts once.
  std::vector<std::string> other = sets;
  other.insert(other.end(), {"seed=8", "launch.communicator=local", "run.stop_at=50"});
  ASSERT_EQ(ftrain(ranks(2, "parts", other)).code, 0);
  fs::remove(run_folder("parts") / "metrics.jsonl");
  std::vector<std::string> words = ranks(2, "parts", sets);
  words.emplace_back("--fresh");
  Program program(folder_, words);
  for (const std::size_t lines : {10u, 30u}) {
    std::map<int, pid_t> found;
    ASSERT_TRUE(wait_for_lines(program, "parts", lines));
    while (found.size() < 2 && program.running()) found = ranks_below(program.process());
    ASSERT_EQ(found.size(), 2u);
    ::kill(found.at(lines == 10u ? 1 : 0), SIGKILL);
    while (program.running() && ::kill(found.at(0), 0) == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  const Result result = program.wait();
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("restart 1 of 3 from "),
                                HasSubstr("restart 2 of 3 from "), Not(HasSubstr("error:"))));
  EXPECT_TRUE(checkpoint("parts", "00000060") == checkpoint("whole", "00000060"));
  EXPECT_EQ(metrics("parts"), metrics("whole"));
  EXPECT_EQ(summary("parts")["state"], "done");
}

TEST_F(Processes, RestartsEndWithTheLastReason) {
  // A fresh start that never gets as far as a checkpoint stays one.
  Program program(folder_, ranks(2, "a", {"run.steps=100000", "launch.max_restarts=1"}));
  for (int kills = 0; kills < 2; ++kills) {
    std::map<int, pid_t> found;
    ASSERT_TRUE(wait_for_lines(program, "a", 2));
    while (found.size() < 2 && program.running()) found = ranks_below(program.process());
    ASSERT_EQ(found.size(), 2u);
    fs::remove(run_folder("a") / "metrics.jsonl");
    ::kill(found.at(1), SIGKILL);
  }
  const Result result = program.wait();
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("restart 1 of 1 from the beginning"),
                                HasSubstr("given up after 1 restart")));
  EXPECT_EQ(count(result.err, "error:"), 1u) << result.err;
}

TEST_F(Processes, AreStoppedBySignalsAndContinueToTheSameBits) {
  const std::vector<std::string> sets{"run.steps=60"};
  ASSERT_EQ(ftrain(ranks(2, "whole", sets)).code, 0);
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, {SIGTERM, 143}, {SIGHUP, 143}}) {
    const std::string name = "parts" + std::to_string(signal);
    Program program(folder_, ranks(2, name, sets));
    ASSERT_TRUE(wait_for_lines(program, name, 3));
    program.signal(signal);
    const Result stopped = program.wait();
    ASSERT_EQ(stopped.code, code) << stopped.err;
    EXPECT_EQ(count(stopped.err, "interrupted: a checkpoint is written"), 1u) << stopped.err;
    EXPECT_THAT(stopped.err, AllOf(Not(HasSubstr("mpirun")), Not(HasSubstr("error:"))));
    EXPECT_EQ(summary(name)["state"], "interrupted");
    if (signal == SIGHUP) continue;  // it is the same from here on
    const Result rest = ftrain(ranks(2, name, sets));
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_EQ(metrics(name), metrics("whole"));
    EXPECT_TRUE(checkpoint(name, "00000060") == checkpoint("whole", "00000060"));
  }
}

TEST_F(Processes, GoWithTheirLauncher) {
  Program program(folder_, ranks(2, "a", {"run.steps=100000"}), 0, in_own_folder());
  const auto found = running_ranks(program, "a", 3);
  ASSERT_EQ(found.size(), 2u);
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait().code, 128 + SIGKILL);
  // No limit of time: the test ends when they do.
  for (const auto& [rank, process] : found) {
    while (::kill(process, 0) == 0 && variable_of(process, "OMPI_COMM_WORLD_RANK")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

// A port that nobody listens at now.
int free_port() {
  const int handle = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  ::bind(handle, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(handle, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(handle);
  return ntohs(address.sin_port);
}

// Ranks that another launcher started: the test is the launcher.
class Joining : public Processes {
 protected:
  // Rank `rank` of two, in a folder of its own.
  std::unique_ptr<Program> start(int rank, int port, const std::string& name,
                                 std::vector<std::string> sets = {}) const {
    const fs::path home = folder_ / ("rank" + std::to_string(rank));
    fs::create_directories(home);
    sets.emplace_back("run.folder=" + run_folder(name).string());
    std::vector<std::string> words = ranks(7, name, sets);
    words[1] = (folder_ / "job.toml").string();
    const std::string r = std::to_string(rank);
    return std::make_unique<Program>(
        home, words, 0,
        std::vector<std::string>{"env", "RANK=" + r, "WORLD_SIZE=2", "LOCAL_RANK=" + r,
                                 "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1",
                                 "MASTER_PORT=" + std::to_string(port)});
  }
};

TEST_F(Joining, ByTheVariablesOfTorchrun) {
  ASSERT_EQ(ftrain(ranks(2, "threads", {"launch.communicator=local"})).code, 0);
  const int port = free_port();
  const auto first = start(0, port, "joined"), second = start(1, port, "joined");
  const Result a = first->wait(), b = second->wait();
  ASSERT_EQ(a.code, 0) << a.err;
  ASSERT_EQ(b.code, 0) << b.err;
  EXPECT_EQ(b.err, "");
  EXPECT_THAT(a.err, HasSubstr("ranks: 2 on 1 machine"));
  expect_same_losses("threads", "joined");
}

TEST_F(Joining, AnyRankMayHearTheSignal) {
  const int port = free_port();
  const auto first = start(0, port, "a", {"run.steps=100000"});
  const auto second = start(1, port, "a", {"run.steps=100000"});
  ASSERT_TRUE(wait_for_lines(*first, "a", 3));
  second->signal(SIGTERM);
  const Result a = first->wait(), b = second->wait();
  EXPECT_EQ(a.code, 143) << a.err;
  EXPECT_EQ(b.code, 143) << b.err;
  EXPECT_EQ(summary("a")["state"], "interrupted");
}

TEST_F(Joining, ARankThatDiesIsToldByTheFirst) {
  const int port = free_port();
  const auto first = start(0, port, "a", {"run.steps=100000"});
  const auto second = start(1, port, "a", {"run.steps=100000"});
  ASSERT_TRUE(wait_for_lines(*first, "a", 3));
  second->signal(SIGKILL);
  const Result a = first->wait();
  second->wait();
  EXPECT_EQ(a.code, 4) << a.err;
  EXPECT_THAT(a.err, HasSubstr("error: CommunicationError: rank 1 on "));
  EXPECT_EQ(count(a.err, "error:"), 1u) << a.err;
  EXPECT_EQ(summary("a")["state"], "failed");
}

TEST_F(Joining, UnderMpirunByHand) {
  const Result result = Program(folder_, ranks(7, "a"), 0,
                                {"mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"})
                            .wait();
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(count(result.err, "small: done"), 1u) << result.err;
  EXPECT_THAT(result.err, HasSubstr("ranks: 2 on 1 machine"));
}

TEST_F(Joining, NeedsAWholeEnvironment) {
  const Result half = Program(folder_, ranks(2, "a"), 0, {"env", "RANK=0", "WORLD_SIZE=2"}).wait();
  EXPECT_EQ(half.code, 2) << half.err;
  EXPECT_THAT(half.err, AllOf(HasSubstr("ConfigError"), HasSubstr("MASTER_ADDR")));
  const Result local = Program(folder_, ranks(2, "a", {"launch.communicator=local"}), 0,
                               {"mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"})
                           .wait();
  EXPECT_EQ(local.code, 2) << local.err;
  EXPECT_THAT(local.err, HasSubstr("threads of one process"));
}

}  // namespace
}  // namespace launch_test
