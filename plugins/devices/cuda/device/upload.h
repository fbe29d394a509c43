// A program's inputs on their way to the GPU: a ring of places, so that the inputs of a step are
// copied while the steps before still run, and the host waits for none of them.
//
//   write()   the host copies into the ring's pinned memory, and a stream of its own brings that
//             to the ring's place on the GPU
//   begin()   the main stream copies from there to where the program reads: both are GPU memory
//   end()     the place is free again when all that was enqueued so far is done
//
// An input that is not written keeps what it had. Threads: one. Failure: DeviceError.
#pragma once

#include <cstddef>
#include <vector>

#include "plugins/devices/cuda/runtime/machine.h"
#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/waiter.h"

namespace ftrain::cuda {

class Uploads {
 public:
  // Steps that may be under way at once.
  static constexpr std::size_t places = 3;

  struct Input {
    std::size_t offset = 0, bytes = 0;  // of the program's inputs, one behind the other
  };
  // `target`: where the program reads, `bytes` in all.
  Uploads(Machine& machine, const Waiter& waiter, std::vector<Input> inputs, char* target,
          std::size_t bytes);

  void write(std::size_t input, const void* data);
  void begin();
  void end();

  // GPU memory that a ring takes for inputs of so many bytes.
  static std::size_t device_bytes(std::size_t bytes) { return places * bytes; }

 private:
  struct Place {
    char *pinned = nullptr, *device = nullptr;
    std::vector<bool> written;  // by input, since the last begin()
    Event uploaded, done;
  };
  Place& enter();

  Machine& machine_;
  const Waiter& waiter_;
  std::vector<Input> inputs_;
  char* target_;
  PinnedMemory pinned_;
  DeviceMemory device_;
  std::vector<Place> ring_;
  std::size_t now_ = 0;
  bool entered_ = false;
};

}  // namespace ftrain::cuda
