// ftrain verify: the accuracy of a trained network on the job's verification sets.
#include <cmath>
#include <cstdio>
#include <iostream>

#include "core/train/report.h"
#include "core/train/step_graph.h"
#include "core/verify/evaluator.h"
#include "ftrain/base/error.h"
#include "launch/command_line.h"
#include "launch/weights.h"

namespace ftrain::launch {
namespace {

void print_accuracy(const std::string& set, const Accuracy& a) {
  std::printf("%s: accuracy %.5f +- %.5f, threshold %.4f", set.c_str(), a.mean, a.deviation,
              a.threshold);
  std::isnan(a.xnorm) ? std::printf("\n") : std::printf(", norm %.4f\n", a.xnorm);
  for (const auto& [rate, tar] : a.tar) {
    std::printf("  TAR@FAR %s: %.5f\n", rate.c_str(), tar);
  }
  for (const auto& [name, value] : a.metrics) std::printf("  %s: %.6g\n", name.c_str(), value);
}

}  // namespace

int verify_command(const Words& words) {
  CommandLine line(
      "ftrain verify JOB [options]",
      "Verifies a network on the sets of the job's [verify] table: Accuracy-Flip over "
      "folds, threshold, mean norm of the embeddings, true accept rates, and what else "
      "[verify] metrics names.");
  line.job_arguments();
  add_weight_options(line);
  line.options()("json", "print one JSON object");
  if (!line.parse(words)) return 0;
  const Job job = line.job();
  const auto registry = registry_for(job);
  Assembly a(job, *registry);
  if (a.pair_sets.empty()) {
    throw ConfigError(
        "the job has no verification sets; name some, as in --set "
        "'verify.sets=[\"lfw.bin\"]'");
  }
  Weights weights(line, a.folder() / "checkpoints", nullptr);
  for (NamedPairs& set : a.pair_sets) set.pairs->open(set.file, a.seed());

  a.open_device(0, 1);
  const auto graph = evaluation_graph(a, a.verify.batch);
  const std::int64_t width = embedding_width(*graph);
  const auto store = a.device->make_store();
  const auto forward =
      a.device->compile(a.device->prepare(*graph, store.get(), nullptr), *store, nullptr);
  weights.load(*store);

  const Evaluator evaluator(*forward, a.verify.batch, a.data.image_size, width);
  VerificationReport report;
  report.step = weights.step();
  if (!line.has("json")) std::printf("weights: %s\n", weights.source().c_str());
  for (const NamedPairs& set : a.pair_sets) {
    const Accuracy accuracy =
        evaluator.accuracy(*set.pairs, a.metrics, static_cast<int>(a.verify.folds));
    report.accuracy[set.name] = accuracy;
    if (!line.has("json")) print_accuracy(set.name, accuracy);
    std::fflush(stdout);
  }
  if (line.has("json")) std::cout << verification_json(report) << "\n";
  return 0;
}

}  // namespace ftrain::launch
