// The pieces of launching that decide something: what the environment says, which hosts are meant,
// what of mpirun's output goes on, and which reason for an end is told.
#include <gmock/gmock.h>

#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "ftrain/base/error.h"
#include "launch/ranks/child.h"
#include "launch/ranks/hosts.h"
#include "launch/ranks/mpirun.h"
#include "launch/ranks/rank_environment.h"
#include "launch/ranks/stream_filter.h"
#include "launch/ranks/supervise.h"

namespace {

using namespace ftrain;
using namespace ftrain::launch;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using Map = std::map<std::string, std::string>;

std::optional<RankEnvironment> environment(const Map& map) {
  return rank_environment([&map](const std::string& name) -> std::optional<std::string> {
    const auto found = map.find(name);
    if (found == map.end()) return std::nullopt;
    return found->second;
  });
}

std::string refusal(const Map& map) {
  try {
    environment(map);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "none";
}

Map with(Map map, const Map& more) {
  for (const auto& [name, value] : more) map[name] = value;
  return map;
}

const Map open_mpi{{"OMPI_COMM_WORLD_RANK", "5"},
                   {"OMPI_COMM_WORLD_SIZE", "8"},
                   {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                   {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
const Map slurm{{"SLURM_JOB_ID", "77"},
                {"SLURM_STEP_ID", "0"},
                {"SLURM_PROCID", "5"},
                {"SLURM_NTASKS", "7"},
                {"SLURM_STEP_NUM_TASKS", "7"},
                {"SLURM_LOCALID", "1"},
                {"SLURM_NODEID", "2"},
                {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                {"SLURM_STEP_NODELIST", "n[3-6]"}};
const Map torchrun{{"RANK", "3"},
                   {"WORLD_SIZE", "4"},
                   {"LOCAL_RANK", "1"},
                   {"LOCAL_WORLD_SIZE", "2"},
                   {"MASTER_ADDR", "10.0.0.1"},
                   {"MASTER_PORT", "29500"}};

TEST(RankEnvironment, IsNoneWithoutALauncher) {
  EXPECT_FALSE(environment({}));
  EXPECT_FALSE(environment({{"MASTER_ADDR", "a"}, {"HOSTNAME", "b"}}));
  // A batch script, and a shell in a step of one task.
  EXPECT_FALSE(environment({{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}));
  EXPECT_FALSE(environment(with(slurm, {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}})));
}

TEST(RankEnvironment, OfOpenMpi) {
  const auto found = environment(open_mpi);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->place.rank, 5);
  EXPECT_EQ(found->place.size, 8);
  EXPECT_EQ(found->place.local_rank, 1);
  EXPECT_EQ(found->place.local_size, 4);
  EXPECT_EQ(found->place.host, host_name());
  EXPECT_EQ(found->communicator, "mpi");
  EXPECT_FALSE(found->supervised);
  EXPECT_TRUE(environment(with(open_mpi, {{supervised_variable, "1"}}))->supervised);
}

TEST(RankEnvironment, OfSlurm) {
  const auto found = environment(slurm);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->place.rank, 5);
  EXPECT_EQ(found->place.size, 7);
  EXPECT_EQ(found->place.local_rank, 1);
  EXPECT_EQ(found->place.local_size, 2);
  EXPECT_EQ(found->communicator, "tcp");
  EXPECT_EQ(found->place.address, "n3");
  EXPECT_EQ(found->place.job, "77.0");
  EXPECT_EQ(found->place.port, environment(with(slurm, {{"SLURM_PROCID", "0"}}))->place.port);
  EXPECT_NE(found->place.port, environment(with(slurm, {{"SLURM_JOB_ID", "78"}}))->place.port);
  const auto alone = environment(
      with(slurm, {{"SLURM_PROCID", "6"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "3"}}));
  EXPECT_EQ(alone->place.local_size, 1);
  EXPECT_EQ(environment(with(slurm, {{"PMIX_RANK", "5"}}))->communicator, "mpi");
  const auto met = environment(with(slurm, {{"MASTER_ADDR", "m"}, {"MASTER_PORT", "1234"}}));
  EXPECT_EQ(met->place.address, "m");
  EXPECT_EQ(met->place.port, 1234);
}

TEST(RankEnvironment, OfTorchrun) {
  const auto found = environment(torchrun);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->place.rank, 3);
  EXPECT_EQ(found->place.local_rank, 1);
  EXPECT_EQ(found->place.local_size, 2);
  EXPECT_EQ(found->place.address, "10.0.0.1");
  EXPECT_EQ(found->place.port, 29500);
  EXPECT_EQ(found->communicator, "tcp");
  // One rank a machine, as an Indexed Job of Kubernetes has it.
  Map bare = torchrun;
  bare.erase("LOCAL_RANK");
  bare.erase("LOCAL_WORLD_SIZE");
  EXPECT_EQ(environment(bare)->place.local_size, 1);
  // On one machine all are local.
  const auto loopback = environment(with(bare, {{"MASTER_ADDR", "127.0.0.1"}}));
  EXPECT_EQ(loopback->place.local_rank, 3);
  EXPECT_EQ(loopback->place.local_size, 4);
}

TEST(RankEnvironment, RefusesWhatIsHalfSetOrContradictory) {
  Map half = open_mpi;
  half.erase("OMPI_COMM_WORLD_SIZE");
  EXPECT_THAT(refusal(half),
              AllOf(HasSubstr("OMPI_COMM_WORLD_RANK=5"), HasSubstr("no OMPI_COMM_WORLD_SIZE")));
  half = torchrun;
  half.erase("MASTER_PORT");
  EXPECT_THAT(refusal(half), AllOf(HasSubstr("MASTER_ADDR=10.0.0.1"), HasSubstr("MASTER_PORT")));
  half.erase("MASTER_ADDR");
  EXPECT_THAT(refusal(half), HasSubstr("no MASTER_ADDR"));
  EXPECT_THAT(refusal({{"RANK", "1"}}), AllOf(HasSubstr("RANK=1"), HasSubstr("no WORLD_SIZE")));
  EXPECT_THAT(refusal(with(torchrun, {{"RANK", "4"}})),
              AllOf(HasSubstr("RANK=4"), HasSubstr("WORLD_SIZE=4")));
  EXPECT_THAT(refusal(with(torchrun, {{"RANK", "two"}})), HasSubstr("RANK=two"));
  EXPECT_THAT(refusal(with(torchrun, {{"LOCAL_WORLD_SIZE", "1"}})),
              AllOf(HasSubstr("LOCAL_RANK=1"), HasSubstr("LOCAL_WORLD_SIZE=1")));
  EXPECT_THAT(refusal(with(open_mpi, {{"RANK", "2"}, {"WORLD_SIZE", "8"}})),
              AllOf(HasSubstr("RANK=2"), HasSubstr("OMPI_COMM_WORLD_RANK")));
  EXPECT_EQ(refusal(with(slurm, {{"RANK", "5"}, {"WORLD_SIZE", "7"}})), "none");
  EXPECT_THAT(refusal({{"PMIX_RANK", "2"}}),
              AllOf(HasSubstr("PMIX_RANK"), HasSubstr("WORLD_SIZE")));
}

TEST(RankEnvironment, ExpandsListsOfNodes) {
  EXPECT_THAT(expand_node_list("node[03-05,9],login"),
              ElementsAre("node03", "node04", "node05", "node9", "login"));
  EXPECT_THAT(expand_node_list("r[1-2]n[08-09]"), ElementsAre("r1n08", "r1n09", "r2n08", "r2n09"));
  EXPECT_THAT(expand_node_list("n[99-101].local"),
              ElementsAre("n99.local", "n100.local", "n101.local"));
  EXPECT_TRUE(expand_node_list("").empty());
}

std::string host_refusal(const std::vector<std::string>& entries, int processes) {
  try {
    read_hosts(entries, processes, "job.toml:3:1: ");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "none";
}

TEST(HostList, AreReadStrictly) {
  const auto hosts = read_hosts({"a:8", "b", "[fe80::1]:2"}, 11, "");
  ASSERT_EQ(hosts.size(), 3u);
  EXPECT_EQ(host_list(hosts), "a:8,b:1,[fe80::1]:2");
  for (const char* bad : {"a:0", "a:x", "a:8x", ":4", "", "a b:2", "-x:1", "fe80::1:2", "a:9999"}) {
    EXPECT_THAT(host_refusal({bad}, 1), AllOf(HasSubstr("job.toml:3:1: "), HasSubstr("is no host")))
        << bad;
  }
  EXPECT_THAT(host_refusal({"a:2", "a:3"}, 4), AllOf(HasSubstr("twice"), HasSubstr("a:5")));
  EXPECT_THAT(host_refusal({"a:2", "b:1"}, 4),
              AllOf(HasSubstr("room for 3"), HasSubstr("launch.processes is 4")));
}

TEST(HostList, AreTakenInOrderAndOnlyWhereNeeded) {
  const std::vector<Host> hosts{{"a", 2}, {"b", 3}, {"c", 4}};
  EXPECT_EQ(host_list(take(hosts, 4)), "a:2,b:2");
  EXPECT_EQ(host_list(take(hosts, 9)), "a:2,b:3,c:4");
  EXPECT_TRUE(take(hosts, 10).empty());
}

TEST(HostList, ThatDoNotAnswerAreFound) {
  const std::atomic<int> stop{0};
  // `test HOST true` is no test that succeeds, `echo HOST true` one that does.
  const std::vector<Host> hosts{{"localhost", 1}, {"nowhere.invalid", 1}};
  EXPECT_EQ(host_list(answering(hosts, by_agent("test"), stop)), "localhost:1");
  EXPECT_EQ(host_list(answering(hosts, by_agent("echo"), stop)), "localhost:1,nowhere.invalid:1");
  EXPECT_EQ(host_list(answering(hosts, by_agent("/no/such/agent"), stop)), "localhost:1");
}

const std::string rule = std::string(74, '-') + "\n";

std::string banner(const std::string& text) {
  return rule + text + "\n" + rule;
}
const std::string killed =
    banner("mpirun noticed that process rank 2 with PID 0 on node b exited on signal 9 (Killed).");
const std::string ended = banner(
    "Primary job  terminated normally, but 1 process returned\n"
    "a non-zero exit code. Per user-direction, the job has been aborted.");
const std::string exited = banner(
    "mpirun detected that one or more processes exited with non-zero status, thus causing\n"
    "the job to be terminated. The first process to do so was:\n\n"
    "  Process name: [[20770,1],1]\n  Exit code:    3");

struct Filtered {
  std::string text;
  StreamFilter filter{[this](std::string_view bytes) { text += bytes; }};
};

TEST(StreamFilter, PassesBytesAtOnce) {
  Filtered f;
  f.filter.feed("\r\033[Kstep 1/6  loss 2.0");
  EXPECT_EQ(f.text, "\r\033[Kstep 1/6  loss 2.0");
  EXPECT_TRUE(f.filter.line_open());
  f.filter.feed("\r\033[Kstep 2/6\n");
  EXPECT_FALSE(f.filter.line_open());
  EXPECT_EQ(f.text, "\r\033[Kstep 1/6  loss 2.0\r\033[Kstep 2/6\n");
}

TEST(StreamFilter, TakesOutBannersAndFramesHoweverTheyAreCut) {
  const RankReport report{.what = RankReport::What::failure,
                          .rank = 2,
                          .who = "rank 2 on b",
                          .complaint = {"DataError", "x.rec: two\nlines", 3},
                          .hearsay = true};
  const std::string all = "one\n" + ended + killed + "step 3" + exited + " of 6\n" +
                          to_frame(report) + "mpirun: Forwarding signal 12 to job\n" +
                          "[vm:05759] Read -1, expected 262144, errno = 3\ntwo\n";
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{80}, all.size()}) {
    Filtered f;
    for (std::size_t at = 0; at < all.size(); at += piece) f.filter.feed(all.substr(at, piece));
    f.filter.finish();
    // A line of Open MPI that comes in pieces cannot be told from one that goes on.
    if (piece == all.size()) {
      EXPECT_EQ(f.text, "one\nstep 3 of 6\ntwo\n");
    }
    EXPECT_THAT(f.text, testing::Not(HasSubstr("mpirun"))) << piece;
    ASSERT_EQ(f.filter.notices().size(), 2u) << piece;
    EXPECT_EQ(f.filter.notices()[0].what, Notice::What::killed);
    EXPECT_EQ(f.filter.notices()[0].rank, 2);
    EXPECT_EQ(f.filter.notices()[0].host, "b");
    EXPECT_EQ(f.filter.notices()[0].number, 9);
    EXPECT_EQ(f.filter.notices()[1].what, Notice::What::exited);
    EXPECT_EQ(f.filter.notices()[1].rank, 1);
    EXPECT_EQ(f.filter.notices()[1].number, 3);
    ASSERT_EQ(f.filter.reports().size(), 1u) << piece;
    EXPECT_EQ(f.filter.reports()[0].who, "rank 2 on b");
    EXPECT_EQ(f.filter.reports()[0].complaint.message, "x.rec: two\nlines");
    EXPECT_EQ(f.filter.reports()[0].complaint.code, 3);
    EXPECT_TRUE(f.filter.reports()[0].hearsay);
  }
}

TEST(StreamFilter, PassesWhatIsNoneOfItsBanners) {
  const std::string unknown = banner("The sky is falling on node b.");
  const std::string dashes = std::string(80, '-') + " a heading\n";
  Filtered f;
  f.filter.feed(unknown + dashes + rule + "half a banner\n");
  EXPECT_EQ(f.text, unknown + dashes);
  f.filter.idle();
  EXPECT_EQ(f.text, unknown + dashes + rule + "half a banner\n");
}

Verdict verdict(const std::string& stream, int code) {
  Filtered f;
  f.filter.feed(stream);
  f.filter.finish();
  return verdict_of({.code = code, .reports = f.filter.reports(), .notices = f.filter.notices()});
}

std::string failure(int rank, const Complaint& complaint, bool hearsay = false) {
  return to_frame({.what = RankReport::What::failure,
                   .rank = rank,
                   .who = "rank " + std::to_string(rank) + " on b",
                   .complaint = complaint,
                   .hearsay = hearsay});
}

TEST(Verdicts, NameTheFirstCause) {
  const std::string found = failure(
      0,
      {"CommunicationError", "rank 2 on b (process 7) ended without a word; it was at \"x\"", 4});
  const Verdict death = verdict(found + ended + killed, 137);
  EXPECT_THAT(death.complaint.message,
              AllOf(HasSubstr("rank 2 on b was killed by signal 9 (Killed)"),
                    HasSubstr("; it was at \"x\"")));
  EXPECT_EQ(death.complaint.code, 4);
  EXPECT_TRUE(death.restartable);

  // A rank's own failure is what the others only hear of, whoever ends first.
  const Verdict data = verdict(failure(0, {"CommunicationError", "rank 1 failed", 4}, true) +
                                   failure(1, {"DataError", "x.jpg is missing", 3}) + exited,
                               3);
  EXPECT_EQ(data.who, "rank 1 on b");
  EXPECT_EQ(data.complaint.kind, "DataError");
  EXPECT_EQ(data.complaint.code, 3);
  EXPECT_FALSE(data.restartable);

  // What all say is no rank's own.
  const Complaint same{"ConfigError", "job.toml:1:1: no", 2};
  EXPECT_EQ(verdict(failure(0, same) + failure(1, same), 2).who, "");
  EXPECT_EQ(verdict(failure(0, {"DeviceError", "out of memory", 4}), 4).restartable, true);
}

TEST(Verdicts, AreThereWhenNoRankSpeaks) {
  const Verdict code = verdict(ended + exited, 3);
  EXPECT_THAT(code.complaint.message, HasSubstr("rank 1 ended with code 3"));
  EXPECT_FALSE(code.restartable);
  EXPECT_TRUE(verdict("", 137).restartable);
  EXPECT_FALSE(verdict("", 1).restartable);
  const Verdict host = verdict(
      banner("ORTE has lost communication with a remote daemon.\n\n"
             "  HNP daemon   : [[1,0],0] on node a\n  Remote daemon: [[1,0],1] on node b\n\n"
             "This is usually due to"),
      1);
  EXPECT_THAT(host.complaint.message, HasSubstr("machine b"));
  EXPECT_TRUE(host.restartable);
}

TEST(Children, AreSeenWhileTheyLive) {
  const Child child({"sh", "-c", "sleep 0.5 & wait; exec sleep 60"});
  const auto wait_until = [&](bool has) {
    while (child.has_living_children() != has) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  };
  wait_until(true);
  wait_until(false);
  child.kill();
}

// Open MPI that hangs once its ranks are gone does not keep the user waiting.
TEST(Children, OfMpirunThatAreGoneEndIt) {
  const std::filesystem::path script =
      std::filesystem::path(testing::TempDir()) / ("ftrain_mpirun_" + std::to_string(::getpid()));
  std::ofstream(script) << "#!/bin/sh\nsleep 0.2\nexec sleep 600\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  MpirunJob job;
  job.mpirun = script.string();
  const Ending ending = run_mpirun(job);
  EXPECT_EQ(ending.code, 128 + SIGKILL);
  std::filesystem::remove(script);
}

}  // namespace
