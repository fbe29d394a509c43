// Ranks that are threads of this process.
#include <csignal>
#include <exception>
#include <mutex>
#include <thread>

#include "ftrain/base/error.h"
#include "launch/ranks/ranks.h"

namespace ftrain::launch {
namespace {

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
int run_rank(int rank, Communicator& communicator, const Job& job, const Assembly& assembly,
             Registry& registry, std::mutex& making, TrainerOptions options, Failures& failures) {
  try {
    const int ranks = static_cast<int>(assembly.launch.processes);
    communicator.connect({.rank = rank,
                          .size = ranks,
                          .local_rank = rank,
                          .local_size = ranks,
                          .host = host_name(),
                          .job = assembly.job.name});
    options.communicator = &communicator;
    std::unique_ptr<Trainer> trainer;
    {
      const std::lock_guard lock(making);
      trainer = std::make_unique<Trainer>(job, registry, options);
    }
    trainer->run();
    return code_of(*trainer);
  } catch (const CommunicationError& error) {
    failures.add(std::current_exception(), true);
    communicator.abort(error.what());
  } catch (const std::exception& error) {
    failures.add(std::current_exception(), false);
    communicator.abort(error.what());
  }
  return 1;
}

}  // namespace

int code_of(const Trainer& trainer) {
  if (trainer.summary().state != "interrupted") return static_cast<int>(ExitCode::done);
  return static_cast<int>(trainer.interrupted_by() == SIGINT ? ExitCode::interrupted
                                                             : ExitCode::terminated);
}

int run_on_threads(const Job& job, const Assembly& assembly, Registry& registry,
                   const TrainerOptions& options) {
  const auto ranks = static_cast<std::size_t>(assembly.launch.processes);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (std::size_t r = 0; r < ranks; ++r) {
    communicators.push_back(registry.create<Communicator>("local", Table::empty("launch")));
  }
  std::mutex making;
  Failures failures;
  std::vector<int> codes(ranks);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      codes[r] = run_rank(static_cast<int>(r), *communicators[r], job, assembly, registry, making,
                          options, failures);
    });
  }
  for (std::thread& thread : threads) thread.join();
  failures.raise();
  return codes[0];
}

}  // namespace ftrain::launch
