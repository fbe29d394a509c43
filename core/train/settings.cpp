#include "core/train/settings.h"

#include <algorithm>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain {

void JobSettings::configure(Keys& keys) {
  keys.bind("name", name, "the run's name: its folder, its log lines");
  keys.bind("seed", seed, "of everything random", at_least(0));
}

void DataSettings::configure(Keys& keys) {
  keys.bind("batch", batch, "samples a step and rank", at_least(1));
  keys.bind("image_size", image_size, "height and width of the network's input", at_least(8));
  keys.bind("shuffle", shuffle, "a new order in every epoch; false: the data set's order");
  keys.bind("flip", flip, "probability of a left-right flip", between(0, 1));
  keys.bind("threads", threads, "decode threads; 0: one for each core", at_least(0));
  keys.bind("prefetch", prefetch, "batches in the ring", at_least(2));
  keys.bind("on_corrupt", on_corrupt, "a sample that cannot be decoded stops the run or is skipped",
            one_of(std::vector<std::string>{"stop", "skip"}));
  keys.bind("mean", mean, "subtracted from pixels 0..255");
  keys.bind("scale", scale, "factor after that", above(0));
}

void InitSettings::configure(Keys& keys) {
  keys.bind("backbone", backbone, "safetensors file with arcface_torch's parameter names");
  keys.bind("centers", centers, "safetensors file with the tensor `weight` [classes, embedding]");
}

void VerifySettings::configure(Keys& keys) {
  keys.bind_sources("sets", sets,
                    "verification files (.bin, .tsv), or names of plugins that make pairs");
  keys.bind("every", every, "verify each so many steps; 0: at the end only", at_least(0));
  keys.bind("batch", batch, "images a forward pass", at_least(1));
  keys.bind("folds", folds, "of the accuracy", at_least(2));
  keys.bind("metrics", metrics, "what is measured on each set: accuracy, xnorm, tar, or plugins");
  keys.expect(std::count(metrics.begin(), metrics.end(), "accuracy") == 1, "metrics",
              "name `accuracy`, once: the best checkpoint is chosen by it");
}

void CheckpointSettings::configure(Keys& keys) {
  keys.bind("every", every, "write one each so many steps; 0: at the end only", at_least(0));
  keys.bind("keep", keep, "how many of the last ones stay, beside the best", at_least(1));
  keys.bind("asynchronous", asynchronous,
            "write from a copy in memory while training goes on; false: no copy, training waits");
}

void RunSettings::configure(Keys& keys) {
  keys.bind("steps", steps, "length of the training", at_least(1));
  keys.bind("epochs", epochs, "the same in passes over the data", above(0));
  keys.bind("stop_at", stop_at, "stop there with a checkpoint; the schedule still ends at the end",
            at_least(1));
  keys.bind("accumulate", accumulate,
            "parts of a step: each takes [dataset] batch samples a rank, one after the other, and "
            "their mean gradient is applied",
            at_least(1));
  keys.bind("timeline", timeline,
            "write what each rank did and when in that step: timeline-rank-N.json, for "
            "chrome://tracing or Perfetto",
            at_least(1));
  keys.bind("folder", folder, "the run folder, relative to the working directory");
  keys.expect(steps.has_value() != epochs.has_value(), steps ? "epochs" : "steps",
              "give exactly one of `steps` and `epochs`");
}

void LaunchSettings::configure(Keys& keys) {
  keys.bind("processes", processes, "ranks; a launcher that started them says itself how many",
            at_least(1));
  keys.bind(
      "hosts", hosts,
      "machines for the ranks, each with its number of them: [\"a:8\", \"b:8\"]; none: this one");
  keys.bind("communicator", communicator,
            "the plugin that connects them; auto: mpi where a launcher of it is there, tcp where "
            "MASTER_ADDR is set, else local (threads of one process); and nccl between GPUs");
  keys.bind("agent", agent, "what reaches the hosts: ssh unless given");
  keys.bind("max_restarts", max_restarts,
            "how often ranks that died are started again, from the last checkpoint", at_least(0));
  keys.bind("timeout", timeout,
            "seconds without progress after which a rank counts as hung and the job ends; 0: never",
            at_least(0));
}

void ObserverSettings::configure(Keys& keys) {
  keys.bind("use", use, "plugins that are told how the run goes");
}

void PluginSettings::configure(Keys& keys) {
  keys.bind("path", path, "folders that are searched for plugins first");
  keys.bind("load", load, "libraries to load that no other table names, for the kernels in them");
}

void check_root(const Job& job) {
  static const std::vector<std::string> known{
      "name",        "seed",      "include",  "device",    "backbone", "head",
      "parallelism", "optimizer", "schedule", "dataset",   "init",     "verify",
      "checkpoint",  "run",       "launch",   "observers", "plugins"};
  for (const std::string& key : job.root().keys()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw ConfigError(job.root().place(key).text() + ": a job has no key or table '" + key +
                        "'; it has " + join(known) + "." + did_you_mean(key, known));
    }
  }
}

std::vector<std::string> key_names(Configurable& thing) {
  std::vector<std::string> names;
  for (const KeyDoc& key : describe(thing)) names.push_back(key.name);
  return names;
}

}  // namespace ftrain
