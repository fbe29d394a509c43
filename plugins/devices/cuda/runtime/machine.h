// What a rank has of its GPU, shared by its store and its programs: the GPU itself, streams, and
// the libraries' handles.
//
// Ownership: the device's; everything made with it goes before. Threads: the rank's own.
#pragma once

#include <atomic>
#include <memory>

#include "core/compile/passes.h"
#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "plugins/devices/cuda/cudnn/cudnn.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/runtime/gpu.h"
#include "plugins/devices/cuda/runtime/host_work.h"
#include "plugins/devices/cuda/runtime/stream.h"

namespace ftrain::cuda {

struct Machine {
  Gpu gpu;
  Stream main;         // kernels
  Stream collectives;  // beside them
  Stream copies;       // what kernels prefetch
  Stream uploads;      // inputs of steps to come
  HostLane main_lane, collectives_lane;
  std::unique_ptr<Cudnn> cudnn;    // null: convolutions by own kernels
  std::unique_ptr<Cublas> cublas;  // null: products by own kernels
  // Of a training program's kernels on the main stream, of an evaluation's there, and of
  // collectives beside them.
  Context training, evaluation, beside;

  // Whether products and convolutions of f32 may be rounded to tf32.
  struct Rounding {
    bool training = false, evaluation = false;
  };

  // The current GPU is `found`, or none is.
  Machine(Gpu found, Rounding tf32)
      : gpu(std::move(found)), main(open()), collectives(open()), copies(open()), uploads(open()) {
    training.stream = main;
    training.copies = copies;
    training.multiprocessors = gpu.multiprocessors;
    training.tile_bytes = gpu.tile_bytes();
    training.tf32 = tf32.training;
    training.host = &main_lane;
    evaluation = training;
    evaluation.tf32 = tf32.evaluation;
    beside = training;
    beside.stream = collectives;
    beside.host = &collectives_lane;
    machines() += counted();
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine() { machines() -= counted(); }
  // Those with a GPU: ranks that are threads of one process have one each.
  static int in_this_process() { return machines(); }

  void set_libraries() {
    for (Context* context : {&training, &evaluation, &beside}) {
      context->cudnn = cudnn.get();
      context->cublas = cublas.get();
    }
  }
  const Context& context_of(const Graph& program) const {
    return writes_states(program) ? training : evaluation;
  }

  // What functions on the host threw.
  void raise() {
    main_lane.raise();
    collectives_lane.raise();
  }

 private:
  static std::atomic<int>& machines() {
    static std::atomic<int> count{0};
    return count;
  }
  int counted() const { return gpu.assumed ? 0 : 1; }
  Stream open() const { return gpu.assumed ? Stream(nullptr) : Stream(); }
};

}  // namespace ftrain::cuda
