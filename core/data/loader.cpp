#include "core/data/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "ftrain/data/image.h"

namespace ftrain {
namespace {

// Samples skipped in a row after which the data set is taken for useless.
constexpr std::int64_t most_skips = 1000;

LoaderOptions checked(LoaderOptions options) {
  const auto need = [](bool holds, const std::string& rule) {
    if (!holds) throw ConfigError("loader: " + rule);
  };
  need(options.batch >= 1,
       "a batch must hold at least 1 sample, not " + std::to_string(options.batch));
  need(options.ranks >= 1 && options.rank >= 0 && options.rank < options.ranks,
       "rank " + std::to_string(options.rank) + " is not one of " + std::to_string(options.ranks));
  need(options.image_size >= 1,
       "images must have at least 1 pixel a side, not " + std::to_string(options.image_size));
  need(options.threads >= 0,
       "threads must be 0 (one for each core) or more, not " + std::to_string(options.threads));
  need(options.prefetch >= 1,
       "prefetch must be at least 1 batch, not " + std::to_string(options.prefetch));
  need(options.on_corrupt == "stop" || options.on_corrupt == "skip",
       "on_corrupt must be \"stop\" or \"skip\", not \"" + options.on_corrupt + "\"");
  need(options.first_step >= 0 && options.first_step <= options.last_step,
       "steps " + std::to_string(options.first_step) + " to " + std::to_string(options.last_step) +
           " are no range");
  return options;
}

}  // namespace

// Samples are handed to workers one by one, in order. Everything but the pixels and labels of a
// batch in the making is guarded by mutex_; a batch in the making belongs, sample by sample, to the
// workers that took them.
class Loader::Ring {
 public:
  Ring(const Dataset& dataset, LoaderOptions options)
      : dataset_(dataset),
        options_(checked(std::move(options))),
        sampler_(dataset.size(), options_.batch * options_.ranks, options_.shuffle, options_.seed),
        released_(options_.first_step),
        handed_step_(options_.first_step),
        slots_(static_cast<std::size_t>(options_.prefetch)) {
    const auto batch = static_cast<std::size_t>(options_.batch);
    for (Slot& slot : slots_) {
      slot.remaining = options_.batch;
      slot.batch.images.resize(batch * image_bytes());
      slot.batch.labels.resize(batch);
    }
    const auto cores = std::max<std::int64_t>(1, std::thread::hardware_concurrency());
    const std::int64_t threads = std::min(options_.threads > 0 ? options_.threads : cores,
                                          options_.batch * options_.prefetch);
    try {
      for (std::int64_t i = 0; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }

  ~Ring() { stop(); }

  const Sampler& sampler() const { return sampler_; }
  double wait_seconds() const { return wait_seconds_; }
  std::int64_t skipped() const { return skipped_; }

  const Batch& next() {
    release();
    std::unique_lock lock(mutex_);
    if (released_ >= options_.last_step)
      throw std::out_of_range("the loader has no step " + std::to_string(released_));
    Slot& slot = slot_of(released_);
    if (slot.remaining > 0) {
      const auto start = std::chrono::steady_clock::now();
      ready_.wait(lock, [&] { return slot.remaining == 0; });
      wait_seconds_ +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    if (slot.error) std::rethrow_exception(slot.error);
    held_ = true;
    slot.batch.step = released_;
    slot.batch.epoch = sampler_.epoch_of(released_);
    skipped_ += slot.batch.skipped;
    return slot.batch;
  }

  void release() {
    if (!held_) return;
    held_ = false;
    {
      const std::lock_guard lock(mutex_);
      Slot& slot = slot_of(released_++);
      slot.remaining = options_.batch;
      slot.batch.skipped = 0;
    }
    free_.notify_all();
  }

 private:
  struct Slot {
    Batch batch;
    std::int64_t remaining;  // samples that are not there yet
    std::exception_ptr error;
    std::int64_t error_sample = 0;
  };

  std::size_t image_bytes() const {
    const auto side = static_cast<std::size_t>(options_.image_size);
    return side * side * 3;
  }
  Slot& slot_of(std::int64_t step) {
    return slots_[static_cast<std::size_t>((step - options_.first_step) % options_.prefetch)];
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    free_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void work() {
    Decoder decoder;
    Sample sample;
    std::unique_lock lock(mutex_);
    while (true) {
      free_.wait(lock, [&] {
        return stopping_ || handed_step_ >= options_.last_step ||
               handed_step_ - released_ < options_.prefetch;
      });
      if (stopping_ || handed_step_ >= options_.last_step) return;
      const std::int64_t step = handed_step_, i = handed_sample_;
      if (++handed_sample_ == options_.batch) {
        handed_sample_ = 0;
        ++handed_step_;
      }
      Slot& slot = slot_of(step);
      lock.unlock();
      std::exception_ptr error;
      std::int64_t skips = 0;
      try {
        skips = make(step, i, slot.batch, decoder, sample);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (skips > 0) ++slot.batch.skipped;
      // The first sample's error counts, whichever worker was faster.
      if (error && (!slot.error || i < slot.error_sample)) {
        slot.error = error;
        slot.error_sample = i;
      }
      if (--slot.remaining == 0) ready_.notify_one();
    }
  }

  // Puts sample `i` of `step` into its place; returns how many samples were skipped for it.
  std::int64_t make(std::int64_t step, std::int64_t i, Batch& batch, Decoder& decoder,
                    Sample& sample) {
    const std::int64_t epoch = sampler_.epoch_of(step);
    const std::int64_t position =
        sampler_.position_of(step, options_.rank * options_.batch + i) % sampler_.size();
    const auto at = static_cast<std::size_t>(i);
    const std::int64_t tries = std::min(sampler_.size(), most_skips);
    std::string last;
    for (std::int64_t skips = 0; skips < tries; ++skips) {
      const std::int64_t index = sampler_.index(epoch, position + skips);
      try {
        dataset_.read(index, sample);
        decoder.decode_to(sample.bytes, dataset_.describe_sample(index), options_.image_size,
                          batch.images.data() + at * image_bytes());
      } catch (const DataError& error) {
        if (options_.on_corrupt == "stop")
          throw DataError(std::string(error.what()) +
                          ". Repair or remove it, or set on_corrupt = \"skip\" to leave such "
                          "samples out and count them");
        last = error.what();
        warn_once(index, last);
        continue;
      }
      if (sample.label < 0 || sample.label >= dataset_.classes())
        throw DataError(dataset_.describe_sample(index) + ": the label " +
                        std::to_string(sample.label) + " is not below the number of classes, " +
                        std::to_string(dataset_.classes()));
      batch.labels[at] = sample.label;
      return skips;
    }
    throw DataError(std::to_string(tries) +
                    " samples in a row cannot be decoded, so on_corrupt = \"skip\" does not help; "
                    "the last one: " +
                    last);
  }

  void warn_once(std::int64_t index, const std::string& reason) {
    {
      const std::lock_guard lock(mutex_);
      if (!warned_.insert(index).second) return;
    }
    log::warning("skipped: " + reason);
  }

  const Dataset& dataset_;
  const LoaderOptions options_;
  const Sampler sampler_;

  std::mutex mutex_;
  std::condition_variable free_, ready_;  // a slot has become free; a batch has become whole
  bool stopping_ = false;
  std::int64_t released_;     // the step that next() hands out, or has handed out
  std::int64_t handed_step_;  // the sample that the next free worker takes
  std::int64_t handed_sample_ = 0;
  std::vector<Slot> slots_;
  std::set<std::int64_t> warned_;

  // The caller's own.
  bool held_ = false;
  double wait_seconds_ = 0;
  std::int64_t skipped_ = 0;

  std::vector<std::thread> workers_;
};

Loader::Loader(const Dataset& dataset, LoaderOptions options)
    : ring_(std::make_unique<Ring>(dataset, std::move(options))) {}
Loader::~Loader() = default;

const Sampler& Loader::sampler() const {
  return ring_->sampler();
}
const Batch& Loader::next() {
  return ring_->next();
}
void Loader::release() {
  ring_->release();
}
double Loader::wait_seconds() const {
  return ring_->wait_seconds();
}
std::int64_t Loader::skipped() const {
  return ring_->skipped();
}

}  // namespace ftrain
