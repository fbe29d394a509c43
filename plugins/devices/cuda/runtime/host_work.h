// What the host does between the kernels of a stream.
//
// A HostCall is enqueued as kernels are: in its turn the function runs, on a thread of the driver,
// while the stream waits for it. It may be captured and replayed. The function calls nothing of
// CUDA's. What it throws is kept by its HostLane, and whoever synchronises with the stream asks for
// it there (HostLane::raise()); later calls of the lane are then passed over.
//
// What an executable with collectives (is_collective) does about it:
//   - each stream's Context has a lane of its own, alive as long as the device;
//   - it captures in the mode cudaStreamCaptureModeThreadLocal: communicators have threads;
//   - where Communicator::device_collectives() is nullptr, run() waits for the whole step and then
//     calls raise(): the communicator is the rank's own again between two steps;
//   - where it is not, every wait for the stream is done by DeviceCollectives::wait(), which throws
//     what failed.
//
// Ownership: a HostCall stays where it is until the last stream or graph that it was enqueued on is
// done with it; the lane outlives its calls. Threads: enqueue() and buffer() are the rank's own
// thread's, the rest is anyone's. Failure: DeviceError from CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

#include "plugins/devices/cuda/runtime/memory.h"

namespace ftrain::cuda {

// The calls of one stream: they come one after another.
class HostLane {
 public:
  static constexpr std::size_t buffer_bytes = std::size_t{32} << 20;

  // Pinned memory that the calls pass what they exchange through: shared, since none begins before
  // the one before it is done. Made at the first call, which is not to be in a launch.
  char* buffer();

  bool failed() const { return failed_; }
  // Throws what a call threw first, each time anew; nothing when none did.
  void raise();
  void keep(std::exception_ptr error);

 private:
  PinnedMemory buffer_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

class HostCall {
 public:
  HostCall(HostLane& lane, std::function<void()> work) : lane_(lane), work_(std::move(work)) {}
  HostCall(const HostCall&) = delete;
  HostCall& operator=(const HostCall&) = delete;

  void enqueue(cudaStream_t stream);

 private:
  static void run(void* call);

  HostLane& lane_;
  const std::function<void()> work_;
};

}  // namespace ftrain::cuda
