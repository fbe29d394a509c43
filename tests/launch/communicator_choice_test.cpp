// By which communicators ranks exchange: what the job says, where it runs, what is installed.
#include <gmock/gmock.h>

#include <set>

#include "ftrain/base/error.h"
#include "launch/ranks/communicator_choice.h"

namespace {

using namespace ftrain;
using namespace ftrain::launch;
using testing::HasSubstr;

using Names = std::set<std::string>;

HasPlugin only(const Names& names) {
  return [names](const std::string& name) { return names.count(name) > 0; };
}
const Names all{"local", "tcp", "mpi", "nccl"};

LaunchSettings settings(const std::string& communicator, std::int64_t processes = 8) {
  LaunchSettings settings;
  settings.communicator = communicator;
  settings.processes = processes;
  return settings;
}

RankEnvironment under_mpirun() {
  RankEnvironment environment;
  environment.launcher = "mpirun";
  environment.communicator = "mpi";
  return environment;
}

RankEnvironment under_torchrun() {
  RankEnvironment environment;
  environment.launcher = "a launcher that sets RANK and WORLD_SIZE";
  environment.communicator = "tcp";
  environment.place.address = "10.0.0.1";
  environment.place.port = 29500;
  return environment;
}

std::string of_rank(const std::string& asked, const RankEnvironment& environment,
                    const std::string& device, const Names& plugins = all) {
  try {
    const RankCommunicators names =
        choose_for_rank(settings(asked), environment, device, only(plugins));
    return names.host + (names.device.empty() ? "" : "+" + names.device);
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(CommunicatorOfRanks, IsNcclBetweenGpusAndTheLaunchersForTheHost) {
  EXPECT_EQ(of_rank("auto", under_mpirun(), "cuda"), "mpi+nccl");
  EXPECT_EQ(of_rank("auto", under_torchrun(), "cuda"), "tcp+nccl");
  EXPECT_EQ(of_rank("nccl", under_mpirun(), "cuda"), "mpi+nccl");
  EXPECT_EQ(of_rank("nccl", under_torchrun(), "cuda"), "tcp+nccl");
  // Where it is asked for, it must be there: the registry says so.
  EXPECT_EQ(of_rank("nccl", under_mpirun(), "cuda", {"mpi"}), "mpi+nccl");
}

TEST(CommunicatorOfRanks, GoesThroughTheHostWhereTheJobOrTheMachineSaysSo) {
  EXPECT_EQ(of_rank("mpi", under_mpirun(), "cuda"), "mpi");
  EXPECT_EQ(of_rank("tcp", under_torchrun(), "cuda"), "tcp");
  EXPECT_EQ(of_rank("auto", under_mpirun(), "cuda", {"mpi", "tcp"}), "mpi");
}

TEST(CommunicatorOfRanks, IsTheLaunchersForCpus) {
  EXPECT_EQ(of_rank("auto", under_mpirun(), "cpu"), "mpi");
  EXPECT_EQ(of_rank("auto", under_torchrun(), "cpu"), "tcp");
  RankEnvironment meets = under_mpirun();
  meets.place.address = "a";
  EXPECT_EQ(of_rank("auto", meets, "cpu", {"tcp"}), "tcp");
  EXPECT_EQ(of_rank("auto", meets, "cuda", {"tcp", "nccl"}), "tcp+nccl");
}

TEST(CommunicatorOfRanks, RefusesWhatFindsNobody) {
  EXPECT_THAT(of_rank("nccl", under_mpirun(), "cpu"),
              HasSubstr("exchanges between GPUs, and [device] plugin is \"cpu\""));
  EXPECT_THAT(of_rank("local", under_mpirun(), "cuda"), HasSubstr("threads of one process"));
  EXPECT_THAT(of_rank("mpi", under_torchrun(), "cuda"), HasSubstr("Open MPI finds no ranks there"));
  EXPECT_THAT(of_rank("tcp", under_mpirun(), "cpu"), HasSubstr("set MASTER_ADDR"));
}

TEST(CommunicatorToStart, IsWhatBringsTheRanksTogether) {
  EXPECT_EQ(choose_to_start(settings("auto"), true, only(all)), "mpi");
  EXPECT_EQ(choose_to_start(settings("nccl"), true, only(all)), "mpi");
  EXPECT_EQ(choose_to_start(settings("nccl"), true, only({"nccl", "tcp"})), "tcp");
  EXPECT_EQ(choose_to_start(settings("tcp"), true, only(all)), "tcp");
  EXPECT_EQ(choose_to_start(settings("local"), true, only(all)), "local");
  // One process, and nothing that would have to start it again.
  EXPECT_EQ(choose_to_start(settings("nccl", 1), true, only(all)), "local");
  EXPECT_EQ(choose_to_start(settings("auto", 1), true, only(all)), "local");
}

TEST(CommunicatorToStart, WantsMpirun) {
  EXPECT_EQ(choose_to_start(settings("auto"), false, only(all)), "local");
  try {
    choose_to_start(settings("nccl"), false, only(all));
    ADD_FAILURE() << "started without mpirun";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("started by mpirun, which is in no folder of PATH"));
  }
}

}  // namespace
