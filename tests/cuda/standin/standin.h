// What tests say to the stand-in for a GPU, and hear from it.
//
// Kernels run as C++ functions of the host: each thread of a block is a fiber, blocks go one after
// another, and threads wait for each other only where the kernel says so. Whatever CUDA leaves
// undefined throws Misuse out of the launch, by kernel, block and thread:
//  - a barrier that not all threads of the block reach, or that they reach at different places;
//  - a shuffle, vote or __syncwarp of which a lane in the mask stays away, or comes elsewhere; a
//    value asked of a lane that is not in the mask;
//  - shared memory: outside what the launch asked for, read before it is written, or touched by two
//    threads, one of them writing, with nothing between that orders them;
//  - vectors at addresses that they are not aligned to;
//  - addresses that the test forbids (Forbidden), such as those around a buffer.
// The last three are seen in code that is compiled with calls for each access
// (standin_instrument() in CMakeLists.txt). A sanitized build has no such calls, and
// AddressSanitizer in their stead.
//
// Stricter than CUDA: lanes of a mask that have returned, or that the block does not have, are
// absent too.
//
// Streams are queues (cuda_runtime_api.h, queue.h). Device memory is filled with NaN, lies between
// bytes that nobody may touch, and is closed to the host while no operation runs. Throws Misuse out
// of the call that waits: what kernels do wrong, and host functions that throw. After that, as
// after CUDA's own errors of this sort, every call returns the error, until reset(). Programs are
// told by the environment: FTRAIN_STANDIN="seed=3,memory=268435456,devices=1,
// capability=75,fail=cudaMalloc:2:5" (call:error:calls before it; may be repeated).
// Threads: kernels of several streams take turns, in any thread.
#pragma once

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace standin {

class Misuse : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The order in which the blocks, and the threads of a block, get their turns.
enum class Order { forward, reverse, shuffled };

struct Settings {
  Order order = Order::forward;
  std::uint64_t seed = 1;  // of Order::shuffled, and of the turns of streams
};
// Of the launches to come.
void set(const Settings& settings);

// Kernels may touch none of these bytes while this lives.
class Forbidden {
 public:
  Forbidden(const void* begin, std::size_t bytes);
  Forbidden(Forbidden&& other) noexcept;
  Forbidden& operator=(Forbidden&&) = delete;
  ~Forbidden();

 private:
  std::uintptr_t begin_ = 0;
};

// Whether instrumented code calls for each of its accesses in this build.
bool sees_accesses();

struct Hardware {
  int devices = 8;
  std::size_t memory = std::size_t{4} << 30;  // bytes of each
  int major = 9, minor = 0;                   // the compute capability
  int multiprocessors = 4;
  int driver = 13000;
};
void set_hardware(const Hardware& hardware);

// The call of this name (or the run of a "kernel") gives that error once, after `later` calls that
// give none. Errors of the sort that ends all work do so.
void fail_next(const std::string& call, cudaError error, int later = 0);

// Between tests: all that is in queues is done, errors and failures to come are forgotten, and
// hardware and settings are the first again. Streams and memory stay.
void reset();

// Work of the host that stands for a kernel's: into the stream's queue (or capture), where device
// memory is open to it.
void enqueue(CUstream_st* stream, std::function<void()> work);

}  // namespace standin
