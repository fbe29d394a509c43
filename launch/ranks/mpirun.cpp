#include "launch/ranks/mpirun.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "ftrain/base/error.h"
#include "launch/ranks/child.h"
#include "launch/ranks/rank_environment.h"
#include "launch/ranks/signals.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// May one process of ours read another's memory? Ranks of one machine would exchange tensors so;
// containers often forbid it, and Open MPI finds out too late.
bool can_read_siblings() {
  static char byte = 1;
  const auto wait = [](pid_t process) {
    int status = 1;
    ::waitpid(process, &status, 0);
    return status;
  };
  const pid_t other = ::fork();
  if (other == 0) {
    for (;;) ::pause();
  }
  if (other < 0) return false;
  const pid_t reader = ::fork();
  if (reader == 0) {
    char copy = 0;
    const iovec here{&copy, 1}, there{&byte, 1};
    ::_exit(::process_vm_readv(other, &here, 1, &there, 1, 0) == 1 ? 0 : 1);
  }
  const bool can = reader > 0 && wait(reader) == 0;
  ::kill(other, SIGKILL);
  wait(other);
  return can;
}

// A folder of its own for what mpirun keeps while it runs.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char* base = std::getenv("TMPDIR");
    std::string name = std::string(base && *base ? base : "/tmp") + "/ftrain-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) {
      throw DeviceError("no folder can be made in " + fs::path(name).parent_path().string() +
                        "; set TMPDIR to one that can be written");
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A port that nobody has now, where rank 0 is on this machine; else one by chance.
int some_port(bool here) {
  const int by_chance = 20000 + static_cast<int>(std::random_device{}() % 12000);
  const int handle = here ? ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
  if (handle < 0) return by_chance;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  const bool got = ::bind(handle, plain, size) == 0 && ::getsockname(handle, plain, &size) == 0;
  ::close(handle);
  return got ? ntohs(address.sin_port) : by_chance;
}

// The variables that ranks on other machines need as they are here.
std::vector<std::string> handed_on() {
  std::vector<std::string> names;
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string text = *one;
    const std::string name = text.substr(0, text.find('='));
    for (const char* stem :
         {"FTRAIN_", "GOMP_", "OMP_", "KMP_", "DNNL_", "ONEDNN_", "CUDA_", "NCCL_"}) {
      if (name.rfind(stem, 0) == 0) names.push_back(name);
    }
    for (const char* whole : {"LD_LIBRARY_PATH", "PATH"}) {
      if (name == whole) names.push_back(name);
    }
  }
  return names;
}

std::vector<std::string> command(const MpirunJob& job, const std::vector<std::string>& variables) {
  std::vector<std::string> words{job.mpirun, "--allow-run-as-root", "--oversubscribe",
                                 // Each rank takes its share of the cores itself.
                                 "--bind-to", "none", "-np", std::to_string(job.processes)};
  const auto add = [&words](std::initializer_list<std::string> more) {
    words.insert(words.end(), more);
  };
  add({"-wdir", fs::current_path().string()});
  // A machine that is gone is noticed within seconds.
  add({"--mca", "oob_tcp_keepalive_time", "3", "--mca", "oob_tcp_keepalive_intvl", "1", "--mca",
       "oob_tcp_keepalive_probes", "4"});
  if (!can_read_siblings()) add({"--mca", "btl_vader_single_copy_mechanism", "none"});
  if (!job.hosts.empty()) {
    add({"--host", host_list(job.hosts), "--mca", "plm_rsh_agent", agent_command(job.agent)});
    // A cluster's own manager would reach them in its own way.
    if (!job.agent.empty()) add({"--mca", "plm", "rsh"});
  }
  for (const std::string& name : handed_on()) add({"-x", name});
  for (const std::string& one : variables) add({"-x", one.substr(0, one.find('='))});
  add({fs::read_symlink("/proc/self/exe").string()});
  words.insert(words.end(), job.words.begin(), job.words.end());
  return words;
}

void write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto wrote = ::write(file, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;  // nobody reads any more
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

// How long mpirun may take to end the ranks once one of them has failed: longer than their
// watcher's grace.
constexpr std::chrono::seconds longest_end{45};
// How long mpirun may go on when all that it started is gone.
constexpr std::chrono::seconds longest_alone{3};

bool has_failed(const StreamFilter& filter) {
  return !filter.notices().empty() || std::any_of(filter.reports().begin(), filter.reports().end(),
                                                  [](const RankReport& report) {
                                                    return report.what == RankReport::What::failure;
                                                  });
}

}  // namespace

Ending run_mpirun(const MpirunJob& job) {
  const TemporaryFolder temporary;
  std::vector<std::string> variables{std::string(supervised_variable) + "=1"};
  if (::isatty(STDERR_FILENO) == 1) variables.emplace_back("FTRAIN_TERMINAL=1");
  if (job.meets) {
    variables.push_back("MASTER_ADDR=" +
                        (job.hosts.empty() ? "127.0.0.1" : job.hosts.front().name));
    variables.push_back("MASTER_PORT=" + std::to_string(some_port(job.hosts.empty())));
  }
  const std::vector<std::string> words = command(job, variables);
  variables.push_back("TMPDIR=" + temporary.path());  // of mpirun alone
  Child child(words, variables);
  StreamFilter filter([](std::string_view bytes) { write_all(STDERR_FILENO, bytes); });
  const auto out = [](std::string_view bytes) { write_all(STDOUT_FILENO, bytes); };
  const auto error = [&filter](std::string_view bytes) { filter.feed(bytes); };

  Ending ending;
  bool forwarded = false;
  const auto begin = Clock::now();
  auto heard = begin;
  constexpr auto never = Clock::time_point::max();
  auto failed = never, alone = never;
  bool had_children = false, given_up = false;
  while (!child.ended()) {
    if (child.read(milliseconds(100), out, error)) heard = Clock::now();
    if (Clock::now() - heard > std::chrono::seconds(1)) filter.idle();
    // Before the ranks listen, the signal would end them where they stand.
    const bool joined = !filter.reports().empty();
    if (interrupted().load() != 0 && !forwarded && joined) {
      child.signal(interrupted().load() == SIGINT ? SIGUSR1 : SIGUSR2);
      forwarded = true;
    }
    const std::chrono::duration<double> time = Clock::now() - begin;
    if (!joined && !ending.late && time.count() > job.patience) {
      child.signal(SIGTERM);
      ending.late = true;
    }
    // Open MPI 4.1 now and then waits for itself for ever when a rank died at a bad moment: mpirun,
    // with all of its ranks gone, for a lock of PMIx. Ranks that lose their mpirun end too.
    if (failed == never && has_failed(filter)) failed = Clock::now();
    if (child.has_living_children()) {
      had_children = true;
      alone = never;
    } else if (had_children && alone == never) {
      alone = Clock::now();
    }
    if (Clock::now() - failed > longest_end || Clock::now() - alone > longest_alone) {
      child.kill();
      given_up = true;
    }
    if (signals_caught() > 1 && !ending.stopped) {
      child.signal(SIGTERM);  // ends the ranks, wherever they are
      ending.stopped = true;
    }
  }
  // What it said last. Somebody below it may keep the pipes open; they are not waited for.
  while (child.read(milliseconds(200), out, error)) continue;
  filter.finish();
  if (filter.line_open()) write_all(STDERR_FILENO, "\n");
  const bool over =
      std::any_of(filter.reports().begin(), filter.reports().end(),
                  [](const RankReport& report) { return report.what == RankReport::What::ended; });
  ending.code = given_up && over && !has_failed(filter) ? 0 : *child.ended();
  ending.reports = filter.reports();
  ending.notices = filter.notices();
  return ending;
}

}  // namespace ftrain::launch
