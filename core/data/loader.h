// Batches of decoded images, step by step, made ahead of time by worker threads.
//
// Workers read and decode the samples of coming steps into a ring of batches; every sample has its
// place from the Sampler, so a batch does not depend on threads, and the batches of all ranks side
// by side are the global batch. Nothing is padded: an epoch's remainder is left out.
//
// Ownership: the data set must outlive the Loader. Threads: one thread calls next() and release();
// workers sleep while the ring is full. Destruction at any moment stops the workers and waits for
// the samples that they are decoding. Failure: an error of a step's samples is thrown by the
// next() of that step.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/data/sampler.h"
#include "ftrain/data/dataset.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct LoaderOptions {
  std::int64_t batch = 32;  // per rank
  int rank = 0, ranks = 1;
  int image_size = 112;
  int threads = 0;   // workers; 0: one for each core
  int prefetch = 4;  // batches of the ring, the one in use among them
  bool shuffle = true;
  std::uint64_t seed = 0;
  std::int64_t first_step = 0;                                        // not 0 when a run is resumed
  std::int64_t last_step = std::numeric_limits<std::int64_t>::max();  // the first not to be made
  // What to do when a sample cannot be decoded: "stop" throws a DataError that names it; "skip"
  // takes the next sample of the epoch's order that can, counts it and logs a warning once a
  // record.
  std::string on_corrupt = "stop";
};

struct Batch {
  std::int64_t step = 0, epoch = 0;
  std::vector<std::uint8_t> images;  // [batch, image_size, image_size, 3], RGB
  std::vector<std::int64_t> labels;  // [batch]
  std::int64_t skipped = 0;          // how many of them stand in for a sample that was skipped
};

class FTRAIN_API Loader {
 public:
  // ConfigError for options that make no sense, DataError for an empty data set.
  Loader(const Dataset& dataset, LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const Sampler& sampler() const;

  // Waits for the batch of the next step and hands it out until release() or the following next().
  // After the last step: std::out_of_range. After an error it throws that error again.
  const Batch& next();
  // Gives the batch's memory back to the workers.
  void release();

  double wait_seconds() const;   // how long next() has waited, all calls together
  std::int64_t skipped() const;  // samples replaced in the batches handed out so far

 private:
  class Ring;
  std::unique_ptr<Ring> ring_;
};

}  // namespace ftrain
