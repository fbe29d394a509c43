#include "plugins/communicators/mpi/world.h"

#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include "ftrain/base/error.h"

namespace ftrain::mpi {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// MPI starts and ends once in a process, however many communicators there are.
struct Process {
  std::mutex mutex;
  int worlds = 0;
  bool started_here = false, failed = false;
};
Process& process() {
  static Process one;
  return one;
}

// Processes of one machine read each other's memory directly where the kernel lets them. Containers
// often forbid it, and Open MPI finds out in the middle of a message.
bool reads_memory_of_processes() {
  int from = 1, to = 0;
  const iovec there{&from, sizeof(from)}, here{&to, sizeof(to)};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == sizeof(from);
}

// The user's own settings win.
void prepare_environment() {
  if (!reads_memory_of_processes()) setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
  setenv("OMPI_MCA_btl_base_warn_component_unused", "0", 0);
}

// Plugins are loaded with their symbols to themselves; those that Open MPI loads in turn look for
// its symbols among the public ones.
void publish_symbols() {
  Dl_info library{};
  if (dladdr(reinterpret_cast<void*>(&MPI_Init_thread), &library) != 0 &&
      library.dli_fname != nullptr) {
    dlopen(library.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
  }
}

bool launched_for_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_ID"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

constexpr const char* way_out =
    "; start the ranks with mpirun or `srun --mpi=pmix`, or set communicator = \"tcp\" in [launch]";

// How long to leave the core to others between two looks at a request.
class Patience {
 public:
  void pause() {
    const auto waited = Clock::now() - begin_;
    // No yield: the kernel lets whoever else is there run for milliseconds then.
    if (waited < 20us) return;
    // The kernel adds its slack, 50 us unless told, to every sleep of a thread.
    static thread_local const int slack = prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    static_cast<void>(slack);
    std::this_thread::sleep_for(
        std::clamp<Clock::duration>(waited / 16, Clock::duration(20us), Clock::duration(500us)));
  }

 private:
  Clock::time_point begin_ = Clock::now();
};

}  // namespace

World::World(const RankPlace& place) : place_(place) {
  Process& one = process();
  const std::lock_guard lock(one.mutex);
  start();
  compare_place();
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  check(MPI_Comm_dup(MPI_COMM_WORLD, &everyone_), "MPI_Comm_dup");
  check(MPI_Comm_dup(MPI_COMM_WORLD, &alarm_), "MPI_Comm_dup");
  check(
      MPI_Irecv(heard_reason_.data(), longest_reason, MPI_CHAR, MPI_ANY_SOURCE, 0, alarm_, &heard_),
      "MPI_Irecv");
  ++one.worlds;
}

World::~World() {
  Process& one = process();
  const std::lock_guard lock(one.mutex);
  // An exception on its way: this rank fails without having said so. The others may be anywhere.
  if (stopped() || std::uncaught_exceptions() > 0) one.failed = true;
  const bool last = --one.worlds == 0;
  if (one.failed) return;
  MPI_Cancel(&heard_);
  MPI_Wait(&heard_, MPI_STATUS_IGNORE);
  MPI_Comm_free(&alarm_);
  MPI_Comm_free(&everyone_);
  if (last && one.started_here) MPI_Finalize();
}

void World::start() {
  int running = 0, ended = 0;
  MPI_Initialized(&running);
  MPI_Finalized(&ended);
  if (ended != 0) fail("MPI has ended in this process and starts only once");
  int threads = MPI_THREAD_SINGLE;
  if (running != 0) {
    MPI_Query_thread(&threads);
  } else {
    if (place_.size > 1 && !launched_for_mpi()) {
      fail("communicator mpi: no launcher that MPI knows started this process" +
           std::string(way_out));
    }
    prepare_environment();
    publish_symbols();
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &threads);
    process().started_here = true;
  }
  if (threads < MPI_THREAD_SERIALIZED) {
    fail(
        "communicator mpi: MPI must allow calls from several threads, one at a time, and this "
        "one does not; build it with threads, or set communicator = \"tcp\" in [launch]");
  }
}

void World::compare_place() const {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (rank == place_.rank && size == place_.size) return;
  process().failed = true;
  const auto of = [](int r, int s) { return std::to_string(r) + " of " + std::to_string(s); };
  std::string text = place_.text() + ": communicator mpi: the launcher made this process rank " +
                     of(place_.rank, place_.size) + ", and MPI takes it for rank " + of(rank, size);
  if (size == 1) text += ": MPI did not find the other ranks";
  throw CommunicationError(text + way_out);
}

void World::check(int code, const char* operation) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  fail(std::string(operation) + ": " + text.data());
}

void World::fail(const std::string& text) {
  stop(text);
  throw CommunicationError(place_.text() + ": " + text);
}

void World::check_stopped() const {
  if (stopped()) throw CommunicationError(place_.text() + ": stopped: " + why_);
}

void World::stop(const std::string& text) {
  const std::lock_guard lock(why_mutex_);
  if (stopped()) return;
  why_ = text;
  stopped_.store(true, std::memory_order_release);
}

void World::wait(MPI_Request& request, const char* operation) {
  Patience patience;
  for (bool first = true;; first = false) {
    {
      const Turn turn(*this);
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), operation);
      if (done != 0) return;
      if (!first) hear_of_abort();
    }
    patience.pause();
  }
}

void World::wait_all(std::vector<MPI_Request>& requests, const char* operation) {
  for (MPI_Request& request : requests) wait(request, operation);
  requests.clear();
}

void World::free(MPI_Comm& part) {
  const std::lock_guard lock(mutex_);
  if (!stopped() && std::uncaught_exceptions() == 0) MPI_Comm_free(&part);
}

void World::hear_of_abort() {
  int heard = 0;
  check(MPI_Test(&heard_, &heard, MPI_STATUS_IGNORE), "MPI_Test");
  if (heard == 0) return;
  stop(heard_reason_.data());
  check_stopped();
}

void World::abort(const std::string& reason) {
  // Whoever waits looks for its request under the same mutex: it is stopped after the others were
  // told, so that its buffers, which MPI may still write to until then, stay where they are. A call
  // of MPI that hangs does not keep this thread.
  const std::unique_lock lock(mutex_, 2s);
  if (lock.owns_lock() && !stopped()) tell_everyone(reason);
  stop(reason);
}

void World::tell_everyone(const std::string& reason) {
  const int length = std::min(static_cast<int>(reason.size()), longest_reason);
  std::vector<MPI_Request> told;
  for (int rank = 0; rank < place_.size; ++rank) {
    if (rank == place_.rank) continue;
    MPI_Isend(reason.data(), length, MPI_CHAR, rank, 0, alarm_, &told.emplace_back());
  }
  // Short messages are on their way soon, unless their receiver is gone.
  const auto end = Clock::now() + 200ms;
  int done = 0;
  while (done == 0 && Clock::now() < end) {
    if (MPI_Testall(static_cast<int>(told.size()), told.data(), &done, MPI_STATUSES_IGNORE) !=
        MPI_SUCCESS) {
      return;
    }
    if (done == 0) std::this_thread::sleep_for(100us);
  }
}

}  // namespace ftrain::mpi
