#include "core/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/loader.h"
#include "core/train/durable_file.h"
#include "core/train/process.h"
#include "core/train/run_record.h"
#include "core/train/state.h"
#include "core/train/step_graph.h"
#include "core/verify/evaluator.h"

namespace ftrain {

Observer::~Observer() = default;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of a run folder: the kernels that measuring chose when the run began.
constexpr const char* kernels_file = "kernels.json";

// Empty when there is no such file.
std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

class Trainer::Run {
 public:
  Run(const Job& job, Registry& registry, TrainerOptions options)
      : source_(job),
        options_(options),
        assembly_(job, registry),
        record_(assembly_.job.name, options.started) {
    rank_ = options_.communicator ? options_.communicator->rank() : 0;
    ranks_ = options_.communicator ? options_.communicator->size() : 1;
    folder_ = assembly_.folder();
  }

  void run(const std::function<void(const StepReport&)>& after_step) {
    try {
      prepare();
      train(after_step);
    } catch (const std::exception& error) {
      state_ = "failed";
      if (options_.communicator) options_.communicator->abort(error.what());
      if (announced_) tell_summary();
      throw;
    }
  }

  const RunSummary& summary() { return record_.summary(state_); }
  const StateStore& states() const { return *store_; }

 private:
  bool first() const { return rank_ == 0; }

  // Opens data and device, compiles both graphs, fills the state.
  void prepare() {
    Assembly& a = assembly_;
    a.dataset->open(a.seed());
    const std::int64_t classes = a.dataset->classes();
    const std::int64_t global_batch = a.data.batch * ranks_;
    const Sampler sampler(a.dataset->size(), global_batch, a.data.shuffle, a.seed());
    steps_per_epoch_ = sampler.steps_per_epoch();
    steps_ = a.run.steps ? *a.run.steps
                         : std::llround(*a.run.epochs * static_cast<double>(steps_per_epoch_));
    last_step_ = std::min(steps_, a.run.stop_at.value_or(steps_));
    if (first()) {
      for (NamedPairs& set : a.pair_sets) set.pairs->open(set.file, a.seed());
    }

    a.device->open(rank_, ranks_);
    if (!options_.fresh) a.device->repeat(content_of(folder_ / kernels_file));
    store_ = a.device->make_store();
    const auto graph = training_graph(a, classes, rank_, ranks_);
    step_ = a.device->compile(a.device->prepare(*graph, store_.get(), options_.communicator),
                              *store_, options_.communicator);
    if (first() && !a.pair_sets.empty()) {
      const auto forward = evaluation_graph(a, a.verify.batch);
      width_ = forward->fetches()[0].value.shape()[1];
      forward_ =
          a.device->compile(a.device->prepare(*forward, store_.get(), nullptr), *store_, nullptr);
    }
    start_state();
    if (first()) announce(classes, global_batch);

    loader_.emplace(*a.dataset, LoaderOptions{.batch = a.data.batch,
                                              .rank = rank_,
                                              .ranks = ranks_,
                                              .image_size = static_cast<int>(a.data.image_size),
                                              .threads = static_cast<int>(a.data.threads),
                                              .prefetch = static_cast<int>(a.data.prefetch),
                                              .shuffle = a.data.shuffle,
                                              .seed = a.seed(),
                                              .first_step = done_,
                                              .last_step = last_step_,
                                              .on_corrupt = a.data.on_corrupt});
  }

  // From the run folder's newest checkpoint, from [init], or from the seed.
  void start_state() {
    const std::filesystem::path checkpoints = folder_ / "checkpoints";
    std::optional<CheckpointEntry> latest;
    if (!options_.fresh) {
      std::vector<std::string> refused;
      latest = latest_checkpoint(checkpoints, &refused);
      if (first()) {
        for (const std::string& reason : refused) log::warning(reason);
      }
    }
    if (latest) {
      CheckpointReader checkpoint(latest->path);
      restore(*store_, checkpoint);
      done_ = checkpoint.step();
      if (first()) log::info("continuing from " + latest->path.string());
    } else {
      initialize(*store_, assembly_.seed());
      load_initial_weights(*store_, assembly_.init);
    }
    if (options_.communicator) options_.communicator->barrier();
    if (!first()) return;
    remove_leftovers(checkpoints);
    if (options_.fresh) {
      for (const CheckpointEntry& old : list_checkpoints(checkpoints)) {
        std::filesystem::remove_all(old.path);
      }
      std::filesystem::remove(checkpoints / "best.json");
    } else if (const auto best = best_checkpoint(checkpoints)) {
      record_.set_best(best->accuracy, best->step);
    }
  }

  void announce(std::int64_t classes, std::int64_t global_batch) {
    std::error_code failure;
    std::filesystem::create_directories(folder_, failure);
    if (failure) {
      throw ConfigError("run folder " + folder_.string() + " cannot be made: " + failure.message() +
                        "; set run.folder to a place that can be written");
    }
    log::also_to(folder_ / "log.txt");
    replace_file(folder_ / "job.toml", source_.resolved());
    replace_file(folder_ / "environment.json", environment_json(assembly_.device->summary()));
    if (const std::string choices = assembly_.device->choices(); !choices.empty()) {
      replace_file(folder_ / kernels_file, choices);
    }
    std::int64_t parameters = 0;
    for (const StateStore::Entry& entry : store_->entries()) {
      if (entry.spec.role == StateSpec::Role::parameter) {
        parameters += entry.spec.type.shape.elements();
      }
    }
    const Plan& plan = step_->program().plan;
    const auto mib = [](std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    log::info(assembly_.job.name + ": " + assembly_.device->summary());
    log::info("data: " + assembly_.dataset->summary());
    log::info("model: " + std::to_string(parameters) + " parameters, " + std::to_string(classes) +
              " classes, " + std::to_string(steps_) + " steps of " + std::to_string(global_batch) +
              " samples, " + std::to_string(steps_per_epoch_) + " steps an epoch");
    log::info("memory: " + mib(plan.resident_bytes) + " resident, " + mib(plan.arena_bytes) +
              " arena");
    announced_ = true;
    const RunInfo info{assembly_.job.name, folder_, steps_, steps_per_epoch_, global_batch, done_};
    for (const auto& observer : assembly_.observers) observer->on_start(info);
    tell_summary();
  }

  void train(const std::function<void(const StepReport&)>& after_step) {
    record_.start(done_, static_cast<double>(done_) / static_cast<double>(steps_per_epoch_));
    const Assembly& a = assembly_;
    const double global_batch = static_cast<double>(a.data.batch * ranks_);
    bool interrupted = stop_asked();
    while (done_ < last_step_ && !interrupted) {
      const Clock::time_point begin = Clock::now();
      const double waited = loader_->wait_seconds();
      const Batch& batch = loader_->next();
      check_labels(batch);
      const auto rate = static_cast<float>(a.optimizer->rate *
                                           a.schedule->factor(done_, steps_, steps_per_epoch_));
      step_->write("image", batch.images.data());
      step_->write("label", batch.labels.data());
      step_->write("rate", &rate);
      step_->write("step", &done_);
      step_->run();
      loader_->release();
      const float loss = fetch("loss"), norm = fetch("gradient_norm"), ok = fetch("ok");
      ++done_;
      const double seconds = seconds_since(begin);
      const double wait = loader_->wait_seconds() - waited;
      const StepReport report{
          .step = done_,
          .epoch = static_cast<double>(done_) / static_cast<double>(steps_per_epoch_),
          .loss = static_cast<double>(loss),
          .rate = static_cast<double>(rate),
          .gradient_norm = static_cast<double>(norm),
          .samples_per_second = global_batch / seconds,
          .data_wait = wait / seconds,
          .skipped = ok == 0.0f};
      record_.set_skipped_samples(loader_->skipped());
      if (record_.add(report, seconds, wait) && first()) {
        log::warning("step " + std::to_string(done_) +
                     ": loss or gradient is not finite; the step changed nothing");
      }
      if (after_step) after_step(report);
      if (first()) {
        for (const auto& observer : a.observers) observer->on_step(report);
      }
      interrupted = stop_asked();
      const bool last = done_ == last_step_ || interrupted;
      const bool verify_now =
          done_ == steps_ || (a.verify.every > 0 && done_ % a.verify.every == 0);
      if (verify_now) verify();
      if (last || (a.checkpoint.every > 0 && done_ % a.checkpoint.every == 0)) checkpoint();
    }
    if (done_ == 0 || (interrupted && last_saved_ != done_)) checkpoint();
    // A finished run that is started again says what it has.
    if (last_saved_ < 0 && done_ >= steps_ && record_.last().accuracy.empty()) verify();
    state_ = interrupted && done_ < last_step_ ? "interrupted" : "done";
    tell_summary();
  }

  float fetch(const char* name) {
    float value = 0;
    step_->read(name, &value);
    return value;
  }

  // The ranks must agree on the step at which they stop.
  bool stop_asked() const {
    char stop = options_.interrupted && options_.interrupted->load() ? 1 : 0;
    if (options_.communicator) options_.communicator->broadcast(&stop, 1, 0);
    return stop != 0;
  }

  void check_labels(const Batch& batch) const {
    const std::int64_t classes = assembly_.dataset->classes();
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      if (batch.labels[i] >= 0 && batch.labels[i] < classes) continue;
      const std::int64_t index = loader_->sampler().index_at(
          batch.step, rank_ * assembly_.data.batch + static_cast<std::int64_t>(i));
      throw DataError(assembly_.dataset->describe_sample(index) + ": label " +
                      std::to_string(batch.labels[i]) + " is outside 0 to " +
                      std::to_string(classes - 1) + "; set [dataset] classes or repair the record");
    }
  }

  void verify() {
    if (first() && forward_) {
      const Clock::time_point begin = Clock::now();
      const Evaluator evaluator(*forward_, assembly_.verify.batch, assembly_.data.image_size,
                                width_);
      VerificationReport report;
      report.step = done_;
      for (const NamedPairs& set : assembly_.pair_sets) {
        report.accuracy[set.name] =
            evaluator.accuracy(*set.pairs, static_cast<int>(assembly_.verify.folds));
      }
      report.seconds = seconds_since(begin);
      if (record_.add(report)) best_is_new_ = true;
      for (const auto& observer : assembly_.observers) observer->on_verification(report);
      tell_summary();
    }
    // A new best is kept, so every rank must come to write it.
    char save = best_is_new_ && assembly_.checkpoint.every > 0 ? 1 : 0;
    if (options_.communicator) options_.communicator->broadcast(&save, 1, 0);
    if (save) checkpoint();
  }

  void checkpoint() {
    if (last_saved_ == done_) return;
    const std::filesystem::path checkpoints = folder_ / "checkpoints";
    const CheckpointExtra extra{{"seed", std::to_string(assembly_.job.seed)},
                                {"steps", std::to_string(steps_)}};
    const std::filesystem::path path = save_checkpoint(checkpoints, done_, assembly_.job.name,
                                                       *store_, extra, options_.communicator);
    last_saved_ = done_;
    if (!first()) return;
    std::optional<std::int64_t> best;
    if (const RunSummary& so_far = record_.last(); so_far.best) {
      if (best_is_new_ && so_far.best_step == done_) {
        mark_best_checkpoint(checkpoints, {done_, *so_far.best});
        best_is_new_ = false;
      }
      best = so_far.best_step;
    }
    prune_checkpoints(checkpoints, assembly_.checkpoint.keep, best);
    for (const auto& observer : assembly_.observers) observer->on_checkpoint(done_, path);
  }

  void tell_summary() {
    if (!first()) return;
    const RunSummary& summary = record_.summary(state_);
    for (const auto& observer : assembly_.observers) observer->on_summary(summary);
  }

  const Job& source_;
  TrainerOptions options_;
  Assembly assembly_;
  int rank_ = 0, ranks_ = 1;
  std::filesystem::path folder_;
  std::int64_t steps_ = 0, last_step_ = 0, steps_per_epoch_ = 0, width_ = 0;
  std::int64_t done_ = 0;  // steps
  std::int64_t last_saved_ = -1;
  bool announced_ = false, best_is_new_ = false;

  // Executables and states must go before the device, the loader before the data set.
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<Executable> step_, forward_;
  std::optional<Loader> loader_;

  RunRecord record_;
  std::string state_ = "running";
};

Trainer::Trainer(const Job& job, Registry& registry, TrainerOptions options)
    : run_(std::make_unique<Run>(job, registry, options)) {}
Trainer::~Trainer() = default;
void Trainer::run() {
  run_->run(after_step);
}
const RunSummary& Trainer::summary() const {
  return run_->summary();
}
const StateStore& Trainer::states() const {
  return run_->states();
}

}  // namespace ftrain
