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
// Threads: launches of several host threads take turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace standin {

class Misuse : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The order in which the blocks, and the threads of a block, get their turns.
enum class Order { forward, reverse, shuffled };

struct Settings {
  Order order = Order::forward;
  std::uint64_t seed = 1;  // of Order::shuffled
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

}  // namespace standin
