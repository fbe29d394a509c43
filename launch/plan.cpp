// ftrain plan: what a job's step will be, without running it.
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/base/process.h"
#include "launch/cluster/prediction.h"
#include "launch/command_line.h"
#include "launch/plan_search.h"
#include "launch/plan_text.h"

namespace ftrain::launch {
namespace {

// The job with its kernels in their fixed order: nothing is measured.
Job draft_of(const CommandLine& line, const Job& job, std::vector<std::string> more = {}) {
  const std::string device = job.root().table("device").text("plugin", "auto");
  if (device == "auto" || device == "cpu" || device == "cuda")
    more.emplace_back("device.autotune=false");
  return line.job(more);
}

void print_largest(const CommandLine& line, const Job& job, Registry& registry) {
  const std::size_t budget =
      line.has("memory") ? bytes_of(line.text("memory")) : available_memory_bytes();
  const Job draft = draft_of(line, job);
  nlohmann::ordered_json json;
  for (const Quantity quantity : {Quantity::batch, Quantity::classes}) {
    const bool batch = quantity == Quantity::batch;
    if (!line.has(batch ? "max-batch" : "max-classes")) continue;
    const Largest found = largest(job, draft, registry, quantity, budget);
    if (line.has("json")) {
      json[batch ? "max_batch" : "max_classes"] = {{"value", found.value},
                                                   {"peak_memory_bytes", found.peak},
                                                   {"memory_bytes", found.budget}};
      continue;
    }
    std::cout << (batch ? "largest batch: " : "most classes: ") << count_text(found.value)
              << ", predicted peak " << memory_text(found.peak) << " of "
              << memory_text(found.budget) << "\n";
  }
  if (line.has("json")) std::cout << json.dump(2) << "\n";
}

void print_cluster(const CommandLine& line, const Job& job, Registry& registry) {
  cluster::ClusterPlan plan;
  plan.precision = cluster::precision_of(job);
  plan.cluster = cluster::load(line.text("cluster"), plan.precision);
  cluster::predict(draft_of(line, job, {"verify.sets=[]"}), registry, plan);
  const std::string name = job.root().text("name", "run");
  std::cout << (line.has("json") ? cluster_json(plan, name) : cluster_text(plan, name));
}

}  // namespace

int plan_command(const Words& words) {
  CommandLine line(
      "ftrain plan JOB [options]",
      "Assembles the job's step and prints its shapes, parameters, kernels and memory. "
      "Nothing of it is allocated or run, but kernels that the machine has not measured yet "
      "are measured, one at a time, unless [device] autotune is off. Data that are not there are "
      "done without when [dataset] classes is given.");
  line.job_arguments();
  line.options()("kernels",
                 "each node's kernel, its time where kernels were measured against each other, the "
                 "losers, and why others refused")("graph", "the whole program, a line a node")(
      "json", "print one JSON object")("max-batch",
                                       "the largest [dataset] batch whose predicted peak fits the "
                                       "memory that is available")(
      "max-classes", "the same for the number of classes")(
      "memory", boost::program_options::value<std::string>()->value_name("AMOUNT"),
      "with --max-batch or --max-classes: fit this much, as in 16GiB, instead of what is "
      "available")("cluster", boost::program_options::value<std::string>()->value_name("FILE"),
                   "predict speed, memory and traffic on the cluster that this file describes");
  if (!line.parse(words)) return 0;
  const Job job = line.job();
  const auto registry = registry_for(job);
  if (line.has("cluster")) {
    print_cluster(line, job, *registry);
    return 0;
  }
  if (line.has("max-batch") || line.has("max-classes")) {
    print_largest(line, job, *registry);
    return 0;
  }
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
