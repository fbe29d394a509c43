// One rank of the jobs that mpi_test.cpp starts with mpirun.
#include <gmock/gmock.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"
#include "tests/plugins/communicators/conformance.h"

// Open MPI unloads libraries whose memory it never gave back: nobody can say any more whose it was.
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0";
}

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

int number(const char* variable) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? -1 : std::atoi(text);
}

RankPlace my_place() {
  return {.rank = number("OMPI_COMM_WORLD_RANK"),
          .size = number("OMPI_COMM_WORLD_SIZE"),
          .local_rank = number("OMPI_COMM_WORLD_LOCAL_RANK"),
          .local_size = number("OMPI_COMM_WORLD_LOCAL_SIZE"),
          .host = "here"};
}

std::unique_ptr<Communicator> make() {
  static Registry registry({FTRAIN_PLUGINS});
  return registry.create<Communicator>("mpi", Table::empty("launch"));
}

std::unique_ptr<Communicator> connected() {
  auto communicator = make();
  communicator->connect(my_place());
  return communicator;
}

TEST(Ranks, Conform) {
  conformance::expect_conformance(*connected());
}

// As containers do.
bool forbid_reading_of_processes() {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(rules), rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(Ranks, ConformWithoutReadingEachOthersMemory) {
  if (!forbid_reading_of_processes()) GTEST_SKIP() << "this kernel knows no filters";
  conformance::expect_conformance(*connected());
}

TEST(Ranks, ConformInParts) {
  const auto all = connected();
  const auto part = all->split(all->rank() == 0 ? 1 : -3, 0);
  conformance::expect_reductions<float>(*part);
  conformance::expect_same_bits(*part);
  conformance::expect_gathers_and_broadcasts(*part);
}

TEST(Ranks, ShareAProcessWithAnotherCommunicator) {
  const auto first = connected();
  {
    const auto second = connected();
    conformance::expect_order_and_threads(*second);
  }
  conformance::expect_order_and_threads(*first);
}

TEST(Ranks, SumSmallOnesOfManyRanks) {
  const auto all = connected();
  conformance::expect_reductions<std::int64_t>(*all);
  conformance::expect_same_bits(*all);
}

// mpirun ends the others when a rank ends before MPI does: each leaves a file and waits for all.
void expect_everyone_stopped(bool in_part) {
  const auto all = connected();
  conformance::expect_abort(*all, in_part);
  if (testing::Test::HasFailure()) return;
  const std::filesystem::path folder = std::getenv("FTRAIN_TEST_FOLDER");
  const auto file = [&](int rank) { return folder / ("stopped-" + std::to_string(rank)); };
  std::ofstream(file(all->rank())) << "1";
  const auto end = std::chrono::steady_clock::now() + 20s;
  for (int rank = 0; rank < all->size(); ++rank) {
    while (!std::filesystem::exists(file(rank)) && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(5ms);
    }
  }
}
TEST(Ranks, AreStopped) {
  expect_everyone_stopped(false);
}
TEST(Ranks, AreStoppedInAPart) {
  expect_everyone_stopped(true);
}

// The last rank never comes; each of the others is told so by somebody else than MPI.
TEST(Ranks, DoNotWaitForTheDead) {
  const auto all = connected();
  if (all->rank() == all->size() - 1) std::this_thread::sleep_for(1h);
  std::thread watcher([&] {
    std::this_thread::sleep_for(50ms);
    all->abort("nothing was heard of the last rank");
  });
  std::vector<double> values(100'000);
  EXPECT_THROW(all->all_reduce(values.data(), 100'000, DType::f64, Reduction::sum),
               CommunicationError);
  watcher.join();
  EXPECT_THROW(all->split(0, 0), CommunicationError);
  std::exit(testing::Test::HasFailure() ? 1 : 44);
}

// A rank that fails without a word does not wait in MPI's end for the others.
TEST(Ranks, FailAlone) {
  try {
    const auto all = connected();
    if (all->rank() == 0) throw DataError("a file is gone");
    all->barrier();
  } catch (const DataError&) {
    std::exit(45);
  }
}

TEST(Ranks, RefuseAnotherPlace) {
  RankPlace place = my_place();
  ++place.size;
  try {
    make()->connect(place);
    ADD_FAILURE() << "connected";
  } catch (const CommunicationError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("on here"), HasSubstr("communicator = \"tcp\"")));
  }
}

}  // namespace
}  // namespace ftrain
