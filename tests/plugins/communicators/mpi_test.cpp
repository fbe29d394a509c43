// Ranks that are processes: each test is a job of mpirun; mpi_ranks.cpp is what its ranks do.
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/plugin/registry.h"

#ifdef FTRAIN_MPI_RANKS

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct Job {
  int code = -1;
  std::string output = {};
};

Job run(int ranks, const std::string& test, const std::string& options = "") {
  const std::string command = "mpirun --allow-run-as-root --oversubscribe --bind-to none -np " +
                              std::to_string(ranks) + " " + options +
                              " " FTRAIN_MPI_RANKS
                              " --gtest_brief=1 --gtest_color=no --gtest_filter=Ranks." +
                              test + " 2>&1";
  Job job;
  FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return job;
  char buffer[4096];
  for (std::size_t got = 0; (got = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    job.output.append(buffer, got);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) job.code = WEXITSTATUS(status);
  return job;
}

// Lines that are not the test program's own.
std::string noise(const std::string& output) {
  std::istringstream lines(output);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const bool ours = line.empty() || line.starts_with("[=") || line.starts_with("[  PASSED") ||
                      line.starts_with("Note: Google Test filter") ||
                      line.starts_with("Running main() from");
    if (!ours) kept += line + "\n";
  }
  return kept;
}

class Mpi : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v mpirun > /dev/null") != 0) GTEST_SKIP() << "there is no mpirun";
  }
};
class MpiSizes : public Mpi, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, MpiSizes, testing::Values(1, 2, 3, 4));

TEST_P(MpiSizes, ConformsWithoutNoise) {
  const Job job = run(GetParam(), "Conform");
  EXPECT_EQ(job.code, 0) << job.output;
  EXPECT_EQ(noise(job.output), "");
}

TEST_F(Mpi, ConformsWhereProcessesMayNotReadEachOthersMemory) {
  const Job job = run(2, "ConformWithoutReadingEachOthersMemory");
  EXPECT_EQ(job.code, 0) << job.output;
  EXPECT_EQ(noise(job.output), "");
}

TEST_F(Mpi, ConformsOverSockets) {
  const Job job = run(2, "Conform", "--mca btl self,tcp --mca btl_tcp_if_include lo");
  EXPECT_EQ(job.code, 0) << job.output;
}

TEST_F(Mpi, ConformsInParts) {
  const Job job = run(4, "ConformInParts");
  EXPECT_EQ(job.code, 0) << job.output;
}

TEST_F(Mpi, SumsSmallTensorsOfManyRanks) {
  const Job job = run(6, "SumSmallOnesOfManyRanks");
  EXPECT_EQ(job.code, 0) << job.output;
}

TEST_F(Mpi, HasRoomForTwoCommunicators) {
  const Job job = run(2, "ShareAProcessWithAnotherCommunicator");
  EXPECT_EQ(job.code, 0) << job.output;
}

TEST_F(Mpi, AbortStopsEveryRank) {
  for (const char* test : {"AreStopped", "AreStoppedInAPart"}) {
    char folder[] = "/tmp/ftrain-mpi-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    const Job job = run(3, test, "-x FTRAIN_TEST_FOLDER=" + std::string(folder));
    // mpirun calls a job whose ranks did not end MPI a failure, whatever they found.
    for (int rank = 0; rank < 3; ++rank) {
      EXPECT_TRUE(std::filesystem::exists(folder + ("/stopped-" + std::to_string(rank))))
          << test << ", rank " << rank << ":\n"
          << job.output;
    }
    std::filesystem::remove_all(folder);
  }
}

TEST_F(Mpi, AbortEndsTheWaitForARankThatNeverComes) {
  const Job job = run(3, "DoNotWaitForTheDead");
  EXPECT_EQ(job.code, 44) << job.output;
}

TEST_F(Mpi, ARankThatFailsDoesNotWaitForTheOthers) {
  const Job job = run(3, "FailAlone");
  EXPECT_EQ(job.code, 45) << job.output;
}

TEST_F(Mpi, RefusesAnotherPlaceThanItsLauncherGave) {
  const Job job = run(2, "RefuseAnotherPlace");
  EXPECT_THAT(job.output, testing::Not(HasSubstr("FAILED")));
  EXPECT_THAT(job.output, HasSubstr("PASSED"));
}

TEST(MpiAlone, SaysHowToStartTheRanks) {
  Registry registry({FTRAIN_PLUGINS});
  const auto communicator = registry.create<Communicator>("mpi", Table::empty("launch"));
  try {
    communicator->connect({.rank = 1, .size = 2, .host = "node07"});
    FAIL() << "connected to nobody";
  } catch (const CommunicationError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("rank 1 on node07"), HasSubstr("srun --mpi=pmix"),
                                    HasSubstr("communicator = \"tcp\"")));
  }
}

}  // namespace
}  // namespace ftrain

#endif
