// kernels_bench: the kernels of a job's training step, one by one, against the machine's peaks.
//
//   kernels_bench bench/job.toml --set backbone.depth=50 --set dataset.batch=16
//   kernels_bench JOB --every --benchmark_filter=conv2d    all kernels that would take a node
//
// Google Benchmark's own flags work. Buffers are each kernel's own and stay in the caches that they
// fit, so small tensors come out faster here than in a step.
#include <benchmark/benchmark.h>

#include <cstring>
#include <iostream>

#include "bench/kernels/peaks.h"
#include "bench/kernels/problems.h"
#include "bench/kernels/report.h"
#include "core/train/assembly.h"
#include "core/train/step_graph.h"
#include "ftrain/base/error.h"
#include "plugins/devices/cpu/device/device.h"

namespace {

using namespace ftrain;

struct Words {
  std::string job;
  std::vector<std::string> sets;
  bool every = false;
};

Words read_words(int count, char** arguments) {
  Words words;
  for (int i = 1; i < count; ++i) {
    const std::string word = arguments[i];
    if (word == "--every")
      words.every = true;
    else if (word == "--set" && i + 1 < count)
      words.sets.emplace_back(arguments[++i]);
    else if (!word.starts_with("-") && words.job.empty())
      words.job = word;
    else
      throw ConfigError("'" + word + "' is not understood");
  }
  if (words.job.empty()) {
    throw ConfigError("JOB is missing\nusage: kernels_bench JOB [--set KEY=VALUE]... [--every]");
  }
  return words;
}

void run(const Words& words) {
  const Job job = Job::load(words.job, words.sets);
  const auto registry = registry_for(job);
  registry->add<Device, cpu::CpuDevice>("cpu", "the device whose kernels are measured");
  const Assembly assembly(job, *registry);
  auto* device = dynamic_cast<cpu::CpuDevice*>(assembly.device.get());
  if (device == nullptr) throw ConfigError("[device] plugin: kernels_bench measures \"cpu\"");
  device->open(0, 1);
  assembly.dataset->open(assembly.seed());
  const auto graph = training_graph(assembly, assembly.dataset->classes(), 0, 1);
  const Program program = device->prepare(*graph, nullptr, nullptr);
  const KernelEnvironment environment = device->environment(nullptr);
  const bench::Peaks peaks =
      bench::measure_peaks(environment.threads, environment.isa, cpu::has_bf16());
  std::cout << device->summary() << "\n" << peaks.text() << std::endl;

  const auto problems = bench::problems_of(program, device->kernels(), environment, words.every);
  for (std::size_t n = 0; n < problems.size(); ++n) {
    const bench::Problem& problem = problems[n];
    benchmark::RegisterBenchmark(
        problem.title.c_str(),
        [&, n](benchmark::State& state) {
          bench::Instance instance(problem, environment);
          instance.launch();
          for (auto _ : state) instance.launch();
          using Counter = benchmark::Counter;
          state.counters["n"] = static_cast<double>(n);
          state.counters["nodes"] = static_cast<double>(problem.count);
          state.counters["FLOP/s"] = Counter(problem.flops, Counter::kIsIterationInvariantRate);
          state.counters["B/s"] = Counter(problem.bytes, Counter::kIsIterationInvariantRate);
          state.counters["ceiling"] =
              Counter(bench::ceiling_seconds(problem, peaks), Counter::kIsIterationInvariantRate);
        })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  bench::StepReport report(problems, peaks);
  benchmark::RunSpecifiedBenchmarks(&report);
}

}  // namespace

int main(int count, char** arguments) {
  benchmark::Initialize(&count, arguments);
  try {
    run(read_words(count, arguments));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  }
}
