// ftrain config: the job as the trainer takes it.
#include <iostream>

#include "core/train/assembly.h"
#include "launch/command_line.h"

namespace ftrain::launch {

int config_command(const Words& words) {
  CommandLine line("ftrain config JOB [--set KEY=VALUE ...]",
                   "Prints the job as a job file: includes and --set merged, defaults written out, "
                   "paths absolute.");
  line.job_arguments();
  if (!line.parse(words)) return 0;
  const Job job = line.job();
  const auto registry = registry_for(job);
  const Assembly assembly(job, *registry);  // whatever reads a key writes its default down
  std::cout << job.resolved();
  return 0;
}

}  // namespace ftrain::launch
