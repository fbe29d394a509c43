#include "launch/parity_runs.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <sstream>
#include <thread>

#include "ftrain/base/error.h"

namespace ftrain::launch {
namespace {

constexpr const char* centers_name = "centers.weight";

// The job, but for the parallelism, at a constant rate, with nothing around the steps.
std::vector<std::string> sets_of(const ParitySettings& settings, const ParityCase& one,
                                 const Table& root) {
  const auto number = [](double value) {
    std::ostringstream text;
    text.precision(17);
    text << std::showpoint << value;
    return text.str();
  };
  std::vector<std::string> sets{
      "parallelism.plugin=" + one.parallelism,
      "parallelism.batch_norm=global",
      "parallelism.centers=fp32",  // not every strategy has another, nor would parameters be equal
      "parallelism.centers_memory=device",
      "dataset.batch=" + std::to_string(settings.global_batch / one.ranks),
      "run.accumulate=1",
      "run.stop_at=" + std::to_string(settings.steps),
      "run.folder=" + settings.folder.string(),
      "launch.processes=" + std::to_string(one.ranks),
      "optimizer.rate=" + number(settings.rate),
      "schedule.plugin=step",
      "schedule.at=[]",
      "schedule.factors=[]",
      "schedule.warmup=0",
      "verify.sets=[]",
      "checkpoint.every=0",
      "observers.use=[]",
  };
  if (one.samples && !one.sampled) {
    sets.emplace_back("parallelism.sample_rate=1.0");
    if (root.table("parallelism").has("num_sample")) {
      sets.push_back("parallelism.num_sample=" +
                     std::to_string(std::numeric_limits<std::int64_t>::max()));
    }
  }
  // Kernels in their fixed order: measuring takes longer than these steps.
  const std::string device = root.table("device").text("plugin", "auto");
  if (device == "auto" || device == "cpu" || device == "cuda")
    sets.emplace_back("device.autotune=false");
  return sets;
}

// Calls body(rank) for every rank, each on its thread, and rethrows the failure of a rank that did
// not only hear of another's.
template <class Body>
void on_threads(int ranks, const Body& body) {
  std::exception_ptr own, heard;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (const CommunicationError&) {
        const std::lock_guard lock(mutex);
        if (!heard) heard = std::current_exception();
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!own) own = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (own) std::rethrow_exception(own);
  if (heard) std::rethrow_exception(heard);
}

}  // namespace

ParityRun train(const std::string& job, Registry& registry, const ParitySettings& settings,
                const ParityCase& one) {
  const std::vector<std::string> sets =
      sets_of(settings, one, Job::parse(job, "the resolved job").root());
  ParityRun run;
  for (int rank = 0; rank < one.ranks; ++rank) {
    run.jobs.push_back(std::make_unique<Job>(Job::parse(job, "the resolved job", sets)));
    run.communicators.push_back(registry.create<Communicator>("local", Table::empty("launch")));
  }
  run.trainers.resize(run.jobs.size());
  std::mutex making;  // a registry is for one thread at a time
  on_threads(one.ranks, [&](int rank) {
    const auto r = static_cast<std::size_t>(rank);
    Communicator& communicator = *run.communicators[r];
    try {
      communicator.connect({.rank = rank,
                            .size = one.ranks,
                            .local_rank = rank,
                            .local_size = one.ranks,
                            .job = "parity"});
      TrainerOptions options;
      options.communicator = one.ranks > 1 ? &communicator : nullptr;
      options.interrupted = settings.interrupted;
      options.fresh = true;
      options.checkpoints = false;
      {
        const std::lock_guard lock(making);
        run.trainers[r] = std::make_unique<Trainer>(*run.jobs[r], registry, options);
      }
      if (rank == 0) {
        run.trainers[r]->after_step = [&](const StepReport& report) {
          run.losses.push_back(report.loss);
        };
      }
      run.trainers[r]->run();
    } catch (const std::exception& error) {
      communicator.abort(error.what());
      throw;
    }
  });
  return run;
}

namespace {

// Calls visit(spec, values) for every rank's parameters.
template <class Visit>
void visit_weights(const ParityRun& run, const Visit& visit) {
  std::vector<float> values;
  for (const auto& trainer : run.trainers) {
    for (const StateStore::Entry& entry : trainer->states().entries()) {
      const StateSpec& spec = entry.spec;
      if (spec.role != StateSpec::Role::parameter) continue;
      if (spec.type.dtype != DType::f32) {
        throw DeviceError("parity compares f32 parameters, '" + spec.name + "' is " +
                          spec.type.text());
      }
      values.resize(static_cast<std::size_t>(spec.type.shape.elements()));
      trainer->states().read(spec.name, values.data());
      visit(spec, values);
    }
  }
}

// Where the values of a rank begin in the logical tensor.
std::size_t begin_of(const StateSpec& spec, std::size_t count) {
  if (spec.rows == 0 || count == 0) return 0;
  return static_cast<std::size_t>(spec.first_row) *
         (count / static_cast<std::size_t>(spec.type.shape[0]));
}

}  // namespace

ParityReference reference_of(const ParityRun& run) {
  ParityReference reference{run.losses, {}};
  visit_weights(run, [&](const StateSpec& spec, const std::vector<float>& values) {
    std::vector<float>& whole = reference.weights[spec.name];
    const std::size_t begin = begin_of(spec, values.size());
    whole.resize(std::max(whole.size(), begin + values.size()));
    std::copy(values.begin(), values.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin));
  });
  return reference;
}

ParityDifference compare(const ParityRun& run, const ParityReference& reference) {
  constexpr double smallest = 0.01;
  // Also takes what is not a number.
  const auto raise = [](double& largest, double value) {
    if (value <= largest || std::isnan(largest)) return false;
    largest = value;
    return true;
  };
  ParityDifference result;
  for (std::size_t i = 0; i < reference.losses.size(); ++i) {
    const double want = reference.losses[i];
    raise(result.loss, i < run.losses.size()
                           ? std::abs(run.losses[i] - want) / std::max(std::abs(want), 1e-12)
                           : std::numeric_limits<double>::quiet_NaN());
    if (i == 0) result.first_loss = result.loss;
  }
  // A tensor's squares; all ranks' for one that is split.
  struct Sum {
    double difference = 0, size = 0, count = 0;
  };
  std::map<std::string, Sum> sums;
  visit_weights(run, [&](const StateSpec& spec, const std::vector<float>& values) {
    const std::vector<float>& want = reference.weights.at(spec.name);
    const std::size_t begin = begin_of(spec, values.size());
    if (begin + values.size() > want.size()) {
      throw DeviceError("parity: '" + spec.name + "' has other shapes in two parallelisms");
    }
    Sum& sum = sums[spec.name];
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double wanted = static_cast<double>(want[begin + i]);
      const double difference = static_cast<double>(values[i]) - wanted;
      sum.difference += difference * difference;
      sum.size += wanted * wanted;
    }
    sum.count += static_cast<double>(values.size());
  });
  for (const auto& [name, sum] : sums) {
    const double scale = std::max(std::sqrt(sum.size / sum.count), smallest);
    const double difference = std::sqrt(sum.difference / sum.count) / scale;
    if (name == centers_name) {
      raise(result.centers, difference);
    } else if (raise(result.backbone, difference)) {
      result.tensor = name;
    }
  }
  return result;
}

}  // namespace ftrain::launch
