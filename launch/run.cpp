// ftrain run: trains a job, on one rank or on several ranks that are threads of this process.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>

#include "core/base/error.h"
#include "core/train/checkpoint_files.h"
#include "core/train/trainer.h"
#include "launch/command_line.h"

namespace ftrain::launch {
namespace {

// What a signal handler can reach: the one global of the program.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// The first signal asks the run to stop, the next one does what it does by default.
void on_signal(int) {
  interrupted.store(true);
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGINT, &standard, nullptr);
  sigaction(SIGTERM, &standard, nullptr);
  static constexpr char text[] =
      "\ninterrupted: a checkpoint is written after this step; once more to stop at once\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
}

void watch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A log whose reader is gone does not end a run.
  signal(SIGPIPE, SIG_IGN);
}

// The errors of all ranks: a rank that only heard of another's is passed over.
class Failures {
 public:
  void add(std::exception_ptr error, bool hearsay) {
    const std::lock_guard lock(mutex_);
    if (first_ && !(hearsay_ && !hearsay)) return;
    first_ = std::move(error);
    hearsay_ = hearsay;
  }
  void raise() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
  bool hearsay_ = false;
};

// One rank of several. Jobs and registries are for one thread at a time, so trainers are made one
// after the other.
std::string run_rank(int rank, Communicator& communicator, const Job& job, const Assembly& assembly,
                     Registry& registry, std::mutex& making, TrainerOptions options,
                     Failures& failures) {
  try {
    communicator.connect({.rank = rank,
                          .size = static_cast<int>(assembly.launch.processes),
                          .local_rank = rank,
                          .local_size = static_cast<int>(assembly.launch.processes),
                          .job = assembly.job.name});
    options.communicator = &communicator;
    std::unique_ptr<Trainer> trainer;
    {
      const std::lock_guard lock(making);
      trainer = std::make_unique<Trainer>(job, registry, options);
    }
    trainer->run();
    return trainer->summary().state;
  } catch (const CommunicationError& error) {
    failures.add(std::current_exception(), true);
    communicator.abort(error.what());
  } catch (const std::exception& error) {
    failures.add(std::current_exception(), false);
    communicator.abort(error.what());
  }
  return "failed";
}

std::string run_ranks(const Job& job, const Assembly& assembly, Registry& registry,
                      const TrainerOptions& options) {
  const auto ranks = static_cast<std::size_t>(assembly.launch.processes);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (std::size_t r = 0; r < ranks; ++r) {
    communicators.push_back(registry.create<Communicator>("local", Table::empty("launch")));
  }
  std::mutex making;
  Failures failures;
  std::vector<std::string> states(ranks);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      states[r] = run_rank(static_cast<int>(r), *communicators[r], job, assembly, registry, making,
                           options, failures);
    });
  }
  for (std::thread& thread : threads) thread.join();
  failures.raise();
  return states[0];
}

}  // namespace

int run_command(const Words& words) {
  const auto started = std::chrono::steady_clock::now();
  CommandLine line(
      "ftrain run JOB [options]",
      "Trains the job. A run folder that holds a checkpoint is continued, to the same bits as if "
      "the run had never stopped. Ctrl-C ends the step, writes a checkpoint and exits with 130.");
  line.job_arguments();
  line.options()("fresh", "start anew: the run folder's checkpoints are removed")(
      "resume", "continue, or fail when the run folder holds no checkpoint");
  if (!line.parse(words)) return 0;
  if (line.has("fresh") && line.has("resume")) {
    throw ConfigError("--fresh starts anew and --resume continues: give one of them");
  }
  const Job job = line.job();
  const auto registry = registry_for(job);
  // Told before anything is opened, on any number of ranks.
  const Assembly assembly(job, *registry);
  if (line.has("resume") && !latest_checkpoint(assembly.folder() / "checkpoints")) {
    throw ConfigError("--resume: " + (assembly.folder() / "checkpoints").string() +
                      " holds no sound checkpoint; without --resume the run starts anew");
  }
  watch_signals();
  TrainerOptions options;
  options.interrupted = &interrupted;
  options.fresh = line.has("fresh");
  options.started = started;
  std::string state;
  if (assembly.launch.processes == 1) {
    Trainer trainer(job, *registry, options);
    trainer.run();
    state = trainer.summary().state;
  } else {
    state = run_ranks(job, assembly, *registry, options);
  }
  return static_cast<int>(state == "interrupted" ? ExitCode::interrupted : ExitCode::done);
}

}  // namespace ftrain::launch
