// ftrain verify: the accuracy of a trained network on the job's verification sets.
#include <cstdio>
#include <iostream>
#include <optional>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/suggest.h"
#include "core/train/checkpoint_files.h"
#include "core/train/report.h"
#include "core/train/state.h"
#include "core/train/step_graph.h"
#include "core/verify/evaluator.h"
#include "launch/command_line.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

// The checkpoint that --checkpoint means: a folder, "latest", "best", or by default the best one
// that is still there, else the latest.
CheckpointReader find_checkpoint(const std::optional<std::string>& asked, const fs::path& folder) {
  const bool latest_only = asked == "latest", best_only = asked == "best";
  if (asked && !latest_only && !best_only) return CheckpointReader(*asked);
  if (!latest_only) {
    if (const auto best = best_checkpoint(folder)) {
      for (const CheckpointEntry& entry : list_checkpoints(folder)) {
        if (entry.step == best->step) return CheckpointReader(entry.path);
      }
    }
    if (best_only) {
      throw DataError(folder.string() + ": no checkpoint is marked as the best; use latest");
    }
  }
  std::vector<std::string> refused;
  const auto latest = latest_checkpoint(folder, &refused);
  for (const std::string& reason : refused) log::warning(reason);
  if (!latest) {
    throw DataError(folder.string() +
                    " holds no sound checkpoint; train the job first, or name a checkpoint with "
                    "--checkpoint or a weights file with --weights");
  }
  return CheckpointReader(latest->path);
}

void print_accuracy(const std::string& set, const Accuracy& a) {
  std::printf("%s: accuracy %.5f +- %.5f, threshold %.4f, norm %.4f\n", set.c_str(), a.mean,
              a.deviation, a.threshold, a.xnorm);
  for (const auto& [rate, tar] : a.tar) {
    std::printf("  TAR@FAR %s: %.5f\n", rate.c_str(), tar);
  }
}

}  // namespace

int verify_command(const Words& words) {
  CommandLine line("ftrain verify JOB [options]",
                   "Verifies a network on the sets of the job's [verify] table: Accuracy-Flip over "
                   "folds, threshold, mean norm of the embeddings, true accept rates.");
  line.job_arguments();
  line.options()("checkpoint", po::value<std::string>()->value_name("WHICH"),
                 "a checkpoint's folder, latest, or best (default: the run folder's best, else its "
                 "latest)")("weights", po::value<std::string>()->value_name("FILE"),
                            "a safetensors file with arcface_torch's parameter names, instead of a "
                            "checkpoint")("json", "print one JSON object");
  if (!line.parse(words)) return 0;
  if (line.has("checkpoint") && line.has("weights")) {
    throw ConfigError("give --checkpoint or --weights, not both");
  }
  const Job job = line.job();
  const auto registry = registry_for(job);
  Assembly a(job, *registry);
  if (a.pair_sets.empty()) {
    throw ConfigError(
        "the job has no verification sets; name some, as in --set "
        "'verify.sets=[\"lfw.bin\"]'");
  }
  std::optional<CheckpointReader> checkpoint;
  if (!line.has("weights")) {
    checkpoint = find_checkpoint(
        line.has("checkpoint") ? std::optional(line.text("checkpoint")) : std::nullopt,
        a.folder() / "checkpoints");
  }
  for (NamedPairs& set : a.pair_sets) set.pairs->open(set.file, a.seed());

  a.device->open(0, 1);
  const auto graph = evaluation_graph(a, a.verify.batch);
  const std::int64_t width = graph->fetches()[0].value.shape()[1];
  const auto store = a.device->make_store();
  const auto forward =
      a.device->compile(a.device->prepare(*graph, store.get(), nullptr), *store, nullptr);
  std::string source;
  if (checkpoint) {
    restore(*store, *checkpoint);
    source = checkpoint->path().string();
  } else {
    source = line.text("weights");
    InitSettings init;
    init.backbone = source;
    load_initial_weights(*store, init);
  }

  const Evaluator evaluator(*forward, a.verify.batch, a.data.image_size, width);
  VerificationReport report;
  report.step = checkpoint ? checkpoint->step() : 0;
  if (!line.has("json")) std::printf("weights: %s\n", source.c_str());
  for (const NamedPairs& set : a.pair_sets) {
    const Accuracy accuracy = evaluator.accuracy(*set.pairs, static_cast<int>(a.verify.folds));
    report.accuracy[set.name] = accuracy;
    if (!line.has("json")) print_accuracy(set.name, accuracy);
    std::fflush(stdout);
  }
  if (line.has("json")) std::cout << verification_json(report) << "\n";
  return 0;
}

}  // namespace ftrain::launch
