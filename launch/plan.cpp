// ftrain plan: what a job's step will be, without running it.
#include <iostream>

#include "launch/command_line.h"
#include "launch/plan_text.h"

namespace ftrain::launch {

int plan_command(const Words& words) {
  CommandLine line(
      "ftrain plan JOB [options]",
      "Assembles the job's step and prints its shapes, parameters, kernels and memory. "
      "Nothing of it is allocated or run. Data that are not there are done without "
      "when [dataset] classes is given.");
  line.job_arguments();
  line.options()("kernels", "each node's kernel, and why faster ones refused")(
      "graph", "the whole program, a line a node")("json", "print one JSON object");
  if (!line.parse(words)) return 0;
  const Job job = line.job();
  const auto registry = registry_for(job);
  const StepPlan plan(job, *registry);
  if (line.has("json")) {
    std::cout << plan_json(plan, job);
    return 0;
  }
  std::cout << plan_text(plan, job);
  const auto print = [&](const char* option, std::string (Program::*text)() const) {
    if (!line.has(option)) return;
    std::cout << "\ntraining step, " << option << ":\n" << (plan.training.*text)();
    if (plan.evaluation) {
      std::cout << "\nverification, " << option << ":\n" << ((*plan.evaluation).*text)();
    }
  };
  print("kernels", &Program::kernels_text);
  print("graph", &Program::text);
  return 0;
}

}  // namespace ftrain::launch
