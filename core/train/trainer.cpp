#include "core/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/durable_file.h"
#include "core/base/process.h"
#include "core/compile/tuning_cache.h"
#include "core/data/loader.h"
#include "core/train/environment.h"
#include "core/train/memory_advice.h"
#include "core/train/preflight.h"
#include "core/train/run_checkpoints.h"
#include "core/train/run_record.h"
#include "core/train/step_graph.h"
#include "core/train/step_reader.h"
#include "core/train/timeline.h"
#include "core/train/verification.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"

namespace ftrain {

Observer::~Observer() = default;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of a run folder: the kernels that measuring chose when the run began.
constexpr const char* kernels_file = "kernels.json";

}  // namespace

class Trainer::Run {
 public:
  Run(const Job& job, Registry& registry, TrainerOptions options)
      : source_(job),
        registry_(registry),
        options_(options),
        communicator_(options.communicator),
        assembly_(job, registry),
        record_(assembly_.job.name, options.started) {
    if (communicator_) place_ = communicator_->place();
    folder_ = assembly_.folder();
    record_.set_ranks(place_.size);
  }

  void run(const std::function<void(const StepReport&)>& after_step) {
    try {
      prepare();
      train(after_step);
    } catch (const std::exception& error) {
      state_ = "failed";
      // Who only heard of a failure leaves it to the rank that failed to say so.
      const bool heard = dynamic_cast<const PeerError*>(&error) != nullptr;
      if (communicator_ && !heard) communicator_->abort(error.what());
      if (announced_) tell_summary();
      throw;
    }
  }

  const RunSummary& summary() { return record_.summary(state_); }
  const StateStore& states() const { return *store_; }
  int signal() const { return signal_; }

 private:
  bool first() const { return place_.rank == 0; }
  std::int64_t batch() const { return assembly_.data.batch * assembly_.run.accumulate; }
  std::int64_t global_batch() const { return batch() * place_.size; }
  // Whether ranks have to agree before one of them stops.
  bool together() const { return place_.size > 1; }
  void working_on(const char* what, std::int64_t step = 0) {
    if (communicator_) communicator_->working_on({what, step});
  }

  // Opens data and device, compiles both graphs, fills the state.
  void prepare() {
    Assembly& a = assembly_;
    working_on("opening the data set");
    a.dataset->open(a.seed());
    const std::int64_t classes = a.dataset->classes();
    const Sampler sampler(a.dataset->size(), global_batch(), a.data.shuffle, a.seed());
    steps_per_epoch_ = sampler.steps_per_epoch();
    steps_ = a.run.steps ? *a.run.steps
                         : std::llround(*a.run.epochs * static_cast<double>(steps_per_epoch_));
    last_step_ = std::min(steps_, a.run.stop_at.value_or(steps_));
    verification_.emplace(a, communicator_);
    a.open_device(place_.local_rank, place_.local_size);
    if (communicator_) check_ranks_agree(*communicator_, source_, registry_, *a.dataset);

    compile(classes);
    checkpoints_.emplace(a, *store_, communicator_, global_batch());
    checkpoints_->on_saved = [this](std::int64_t step, const std::filesystem::path& path) {
      for (const auto& observer : assembly_.observers) observer->on_checkpoint(step, path);
    };
    working_on("reading the first state");
    done_ = checkpoints_->start(options_.fresh);
    if (const auto& best = checkpoints_->best()) record_.set_best(best->accuracy, best->step);
    const std::string ranks = communicator_ ? measure_ranks(*communicator_) : "";
    if (first()) announce(classes, ranks);

    loader_.emplace(*a.dataset, LoaderOptions{.batch = batch(),
                                              .rank = place_.rank,
                                              .ranks = place_.size,
                                              .image_size = static_cast<int>(a.data.image_size),
                                              .threads = decode_threads(),
                                              .prefetch = static_cast<int>(a.data.prefetch),
                                              .shuffle = a.data.shuffle,
                                              .seed = a.seed(),
                                              .first_step = done_,
                                              .last_step = last_step_,
                                              .on_corrupt = a.data.on_corrupt});
  }

  // The ranks of a machine share its cores.
  int decode_threads() const {
    if (assembly_.data.threads > 0) return static_cast<int>(assembly_.data.threads);
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    return std::max(1, cores / std::max(1, place_.local_size));
  }

  // The first rank chooses kernels, by measuring where it must, and the others do as it did: the
  // same job rounds the same way wherever a rank runs, and nothing else disturbs the measurement.
  void compile(std::int64_t classes) {
    Assembly& a = assembly_;
    working_on("choosing kernels");
    if (!options_.fresh) a.device->repeat(content_of(folder_ / kernels_file));
    store_ = a.device->make_store();
    std::optional<Program> program;
    const auto in_turn = [&](const std::function<Program()>& prepare) {
      if (first()) program = prepare();
      if (!communicator_) return;
      const std::string choices = shared_text(*communicator_, a.device->choices());
      if (first()) return;
      a.device->repeat(choices);
      program = prepare();
    };
    in_turn([&] {
      const auto graph = training_graph(a, classes, place_.rank, place_.size);
      return a.device->prepare(*graph, store_.get(), communicator_);
    });
    if (communicator_) check_layouts_agree(*communicator_, *program, a.device->summary());
    with_advice(growth_of(*program->graph, true, "[dataset] batch", a.data.batch, classes),
                [&] { step_ = a.device->compile(std::move(*program), *store_, communicator_); });
    reader_.emplace(*step_);
    if (!verification_->wanted()) return;
    in_turn([&] { return verification_->prepare(*store_); });
    with_advice(growth_of(*program->graph, false, "[verify] batch", a.verify.batch, 0),
                [&] { verification_->compile(std::move(*program), *store_); });
  }

  void announce(std::int64_t classes, const std::string& ranks) {
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
      const StateSpec& spec = entry.spec;
      if (spec.role != StateSpec::Role::parameter) continue;
      const Shape& shape = spec.type.shape;
      parameters += spec.rows > 0 && shape[0] > 0 ? shape.elements() / shape[0] * spec.rows
                                                  : shape.elements();
    }
    const Plan& plan = step_->program().plan;
    const auto mib = [](std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    log::info(assembly_.job.name + ": " + assembly_.device->summary());
    if (!ranks.empty()) log::info(ranks);
    log::info("data: " + assembly_.dataset->summary());
    log::info("model: " + std::to_string(parameters) + " parameters, " + std::to_string(classes) +
              " classes, " + std::to_string(steps_) + " steps of " +
              std::to_string(global_batch()) + " samples, " + std::to_string(steps_per_epoch_) +
              " steps an epoch");
    log::info("memory: " + mib(plan.resident_bytes) + " resident, " + mib(plan.arena_bytes) +
              " arena" +
              (plan.host_bytes > 0 ? ", " + mib(plan.host_bytes) + " in the host's memory" : "") +
              (place_.size > 1 ? " on each rank" : ""));
    announced_ = true;
    const RunInfo info{assembly_.job.name, folder_,        steps_,
                       steps_per_epoch_,   global_batch(), done_};
    for (const auto& observer : assembly_.observers) observer->on_start(info);
    tell_summary();
  }

  // A device may run ahead: the host enqueues a step and then reads what the one before made. All
  // steps are read before whatever looks at the states or ends the run.
  void train(const std::function<void(const StepReport&)>& after_step) {
    after_step_ = after_step;
    record_.start(done_, static_cast<double>(done_) / static_cast<double>(steps_per_epoch_));
    const Assembly& a = assembly_;
    agree();
    begin_interval();
    while (done_ < last_step_ && signal_ == 0) {
      enqueue_step();
      const bool verify_now =
          done_ == steps_ || (a.verify.every > 0 && done_ % a.verify.every == 0);
      const bool save_now =
          done_ == last_step_ || (a.checkpoint.every > 0 && done_ % a.checkpoint.every == 0);
      // The first step is waited for: whoever began the run sees that it goes.
      const bool wait = verify_now || save_now || !record_.any();
      tell_steps(wait ? 0 : reader_->most());
      if (stop_) {
        tell_steps(0);
        agree();
      }
      if (verify_now) verify();
      if (save_now || signal_ != 0) checkpoint();
      if (verify_now || save_now) begin_interval();
    }
    if (done_ == 0 || (signal_ != 0 && checkpoints_->last_begun() != done_)) checkpoint();
    working_on("writing the last checkpoint");
    checkpoints_->finish();
    // A finished run that is started again says what it has.
    if (checkpoints_->last_begun() < 0 && done_ >= steps_ && record_.last().accuracy.empty()) {
      verify();
    }
    share_peak_memory();
    state_ = signal_ != 0 && done_ < last_step_ ? "interrupted" : "done";
    tell_summary();
    // Nobody leaves while another one still needs it.
    if (communicator_) communicator_->barrier();
  }

  void enqueue_step() {
    if (input_step_ != done_) bring_inputs(done_);
    if (input_error_) {
      tell_steps(0);
      std::rethrow_exception(input_error_);
    }
    working_on("computing", done_ + 1);
    if (together()) write_notes();
    if (assembly_.run.timeline == done_ + 1) {
      write_timeline(folder_, place_.rank, step_->run_with_timeline());
    } else {
      step_->run();
    }
    reader_->enqueued(done_ + 1, rate_of(done_));
    ++done_;
    // A device that only took the step on works meanwhile.
    if (done_ < last_step_) bring_inputs(done_);
  }

  // Reads and tells the steps that are under way, but for the last `left`.
  void tell_steps(std::size_t left) {
    while (reader_->under_way() > left) {
      working_on("computing", reader_->next());
      const StepScalars scalars = reader_->read();
      const StepReport report = report_of(scalars);
      if (after_step_) after_step_(report);
      if (first()) {
        for (const auto& observer : assembly_.observers) observer->on_step(report);
      }
      heed(scalars);
    }
  }

  StepReport report_of(const StepScalars& scalars) {
    const double seconds = seconds_since(interval_begin_);
    const double wait = loader_->wait_seconds() - interval_waited_;
    begin_interval();
    StepReport report{
        .step = scalars.step,
        .epoch = static_cast<double>(scalars.step) / static_cast<double>(steps_per_epoch_),
        .loss = static_cast<double>(scalars.loss),
        .rate = static_cast<double>(scalars.rate),
        .gradient_norm = static_cast<double>(scalars.gradient_norm),
        .samples_per_second = static_cast<double>(global_batch()) / seconds,
        .data_wait = wait / seconds,
        .skipped = scalars.ok == 0.0f,
        .metrics = scalars.metrics};
    record_.set_skipped_samples(loader_->skipped());
    if (record_.add(report, seconds, wait) && first()) {
      log::warning(skipped_text(report, assembly_.device->loss_scaling().has_value()));
    }
    return report;
  }

  // A step's time is that from the end of the one before it, or from what came between them.
  void begin_interval() {
    interval_begin_ = Clock::now();
    interval_waited_ = loader_->wait_seconds();
  }

  float rate_of(std::int64_t step) const {
    return static_cast<float>(assembly_.optimizer->rate *
                              assembly_.schedule->factor(step, steps_, steps_per_epoch_));
  }

  // Writes the inputs of the step behind `step` steps. What is wrong with its data is its own
  // failure, not that of the step before.
  void bring_inputs(std::int64_t step) {
    working_on("waiting for its data", step + 1);
    input_step_ = step;
    try {
      const Batch& batch = loader_->next();
      check_labels(batch);
      const float rate = rate_of(step);
      step_->write("image", batch.images.data());
      step_->write("label", batch.labels.data());
      step_->write("rate", &rate);
      step_->write("step", &step);
      loader_->release();
    } catch (const DataError&) {
      input_error_ = std::current_exception();
    }
  }

  int interrupted() const { return options_.interrupted ? options_.interrupted->load() : 0; }

  // What ranks must do alike between two steps rides with a step, in a collective that it makes
  // anyway: each rank says whether it is to stop, and whether its part of the pending checkpoint is
  // still being written. Every rank reads the same sums at the same place of the loop: a
  // checkpoint's own step is read before it begins, so the notes are of an earlier one.
  void write_notes() {
    const float notes[2] = {interrupted() != 0 ? 1.0f : 0.0f, checkpoints_->ready() ? 0.0f : 1.0f};
    step_->write("notes", notes);
  }
  void heed(const StepScalars& scalars) {
    stop_ = together() ? scalars.notes[0] > 0 : interrupted() != 0;
    if (together() ? scalars.notes[1] == 0 : checkpoints_->ready()) checkpoints_->finish();
  }

  // For which signal the ranks stop: asked before the first step, and once one of them is to stop.
  void agree() {
    std::int64_t signal = interrupted();
    if (communicator_) communicator_->all_reduce(&signal, 1, DType::i64, Reduction::max);
    signal_ = static_cast<int>(signal);
  }

  void check_labels(const Batch& batch) const {
    const std::int64_t classes = assembly_.dataset->classes();
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      if (batch.labels[i] >= 0 && batch.labels[i] < classes) continue;
      const std::int64_t index = loader_->sampler().index_at(
          batch.step, place_.rank * this->batch() + static_cast<std::int64_t>(i));
      throw DataError(assembly_.dataset->describe_sample(index) + ": label " +
                      std::to_string(batch.labels[i]) + " is outside 0 to " +
                      std::to_string(classes - 1) + "; set [dataset] classes or repair the record");
    }
  }

  void verify() {
    if (!verification_->wanted()) return;
    working_on("verifying");
    const VerificationReport report = verification_->run(done_);
    share_peak_memory();
    const bool best = record_.add(report);
    if (best) checkpoints_->found_best({done_, *record_.last().best});
    if (first()) {
      for (const auto& observer : assembly_.observers) observer->on_verification(report);
    }
    tell_summary();
    // A new best is kept.
    if (best && assembly_.checkpoint.every > 0) checkpoint();
  }

  void share_peak_memory() {
    if (!communicator_) return;
    auto peak = static_cast<std::int64_t>(peak_memory_bytes());
    communicator_->all_reduce(&peak, 1, DType::i64, Reduction::max);
    record_.set_peak_memory(static_cast<std::size_t>(peak));
  }

  void checkpoint() {
    if (!options_.checkpoints) return;
    working_on("writing its checkpoint", done_);
    checkpoints_->begin(done_, steps_);
  }

  void tell_summary() {
    if (!first()) return;
    const RunSummary& summary = record_.summary(state_);
    for (const auto& observer : assembly_.observers) observer->on_summary(summary);
  }

  const Job& source_;
  Registry& registry_;
  TrainerOptions options_;
  Communicator* communicator_;  // nullptr: one rank
  Assembly assembly_;
  RankPlace place_;
  std::filesystem::path folder_;
  std::int64_t steps_ = 0, last_step_ = 0, steps_per_epoch_ = 0;
  std::int64_t done_ = 0;         // steps
  std::int64_t input_step_ = -1;  // the steps behind which the inputs that were written belong
  std::exception_ptr input_error_;
  Clock::time_point interval_begin_;
  double interval_waited_ = 0;  // for data, up to its beginning
  std::function<void(const StepReport&)> after_step_;
  bool stop_ = false;  // a rank is to stop
  int signal_ = 0;     // that the ranks agreed to stop for
  bool announced_ = false;

  // Executables and states must go before the device, the loader before the data set.
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<Executable> step_;
  std::optional<StepReader> reader_;
  std::optional<Verification> verification_;
  std::optional<RunCheckpoints> checkpoints_;
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
int Trainer::interrupted_by() const {
  return run_->signal();
}

}  // namespace ftrain
