// ftrain run: trains a job, on one rank, on several that are threads of this process, as one of
// several that a launcher started, or by starting them.
#include <chrono>

#include "core/checkpoint/files.h"
#include "core/train/trainer.h"
#include "ftrain/base/error.h"
#include "launch/command_line.h"
#include "launch/ranks/ranks.h"
#include "launch/ranks/signals.h"
#include "launch/ranks/supervise.h"

namespace ftrain::launch {
namespace {

// --resume wants something to go on from.
void check_resume(const CommandLine& line, const Assembly& assembly) {
  const std::filesystem::path checkpoints = assembly.folder() / "checkpoints";
  if (line.has("resume") && !latest_checkpoint(checkpoints)) {
    throw ConfigError("--resume: " + checkpoints.string() +
                      " holds no sound checkpoint; without --resume the run starts anew");
  }
}

}  // namespace

int run_command(const Words& words) {
  TrainerOptions options;
  options.started = std::chrono::steady_clock::now();
  options.interrupted = &interrupted();
  CommandLine line(
      "ftrain run JOB [options]",
      "Trains the job. A run folder that holds a checkpoint is continued, to the same bits as if "
      "the run had never stopped. Ctrl-C ends the step, writes a checkpoint and exits with 130; "
      "SIGTERM does the same with 143. With [launch] processes above 1 it starts them; under "
      "mpirun, srun or torchrun it is one of them.");
  line.job_arguments();
  line.options()("fresh", "start anew: the run folder's checkpoints are removed")(
      "resume", "continue, or fail when the run folder holds no checkpoint");
  if (!line.parse(words)) return 0;
  if (line.has("fresh") && line.has("resume")) {
    throw ConfigError("--fresh starts anew and --resume continues: give one of them");
  }
  options.fresh = line.has("fresh");

  if (const auto environment = rank_environment(process_environment())) {
    const std::string size = std::to_string(environment->place.size);
    return run_as_rank(*environment,
                       {.load = [&] { return line.job({"launch.processes=" + size}); },
                        .check = [&](const Assembly& assembly) { check_resume(line, assembly); },
                        .options = options});
  }

  const Job job = line.job();
  const auto registry = registry_for(job);
  // Told before anything is opened, on any number of ranks.
  const Assembly assembly(job, *registry);
  check_resume(line, assembly);
  const std::string communicator = choose_communicator(assembly.launch, *registry);
  if (communicator != "local") {
    return supervise({.job = job,
                      .settings = assembly.launch,
                      .communicator = communicator,
                      .words = words,
                      .folder = assembly.folder()});
  }
  watch_signals(Listener::run);
  if (assembly.launch.processes > 1) return run_on_threads(job, assembly, *registry, options);
  Trainer trainer(job, *registry, options);
  trainer.run();
  return code_of(trainer);
}

}  // namespace ftrain::launch
