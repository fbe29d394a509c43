// One launch: its blocks one after another, the threads of a block as fibers.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <source_location>
#include <string>
#include <vector>

#include "tests/cuda/standin/fiber.h"
#include "tests/cuda/standin/shared_watch.h"
#include "tests/cuda/standin/standin.h"

namespace standin {

using Where = std::source_location;

inline constexpr unsigned most_threads = 1024;
inline constexpr std::size_t most_shared = 227 << 10;  // of compute capability 9.0

// Kept between launches, for the fibers' sake. One launch at a time.
class Machine {
 public:
  // Body: what one thread does.
  void run(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*), void* context,
           const Settings& settings);

  // From within a thread.
  int meet_block(bool yes, const char* word, const Where& where);
  const std::uint64_t* meet_warp(unsigned mask, std::uint64_t value, int source, const char* word,
                                 const Where& where);
  int lane() const { return static_cast<int>(current_->index % 32); }
  void access(std::uintptr_t address, std::size_t bytes, bool writes, bool aligned);
  void atomic(std::uintptr_t address, std::size_t bytes);
  // The thread stops here, and with it the launch: throws Misuse from run(). what() is the text; it
  // leaves nothing on a stack that is never unwound.
  template <class F>
  [[noreturn]] void fail(const F& what) {
    note(what());
    stop();
  }

 private:
  enum class State { fresh, ready, at_block, at_warp, ended };
  struct Thread {
    unsigned index = 0;
    State state = State::fresh;
    Fiber* fiber = nullptr;
    // Where it waits.
    const char* word = nullptr;
    Where where;
    unsigned mask = 0;
  };
  // Lanes that come together.
  struct Group {
    unsigned mask = 0, arrived = 0;
    int unread = 0;  // lanes that have not taken the values yet
    std::array<std::uint64_t, 32> values{};
  };

  void note(const std::string& what);
  [[noreturn]] void stop();
  void run_block();
  void turn(Thread& thread);
  void work();  // on a fiber: threads that have not begun, until one waits
  void become(Thread& thread);
  void wait(State state, const char* word, const Where& where, unsigned mask);
  Group& group_of(std::vector<std::unique_ptr<Group>>& groups, unsigned mask);
  Fiber* free_fiber();
  std::vector<unsigned> order_of(unsigned count);
  std::string waiting(const Thread& thread) const;
  std::string why_stuck() const;
  std::string place(unsigned thread) const;

  // Of the launch
  const void* kernel_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;
  Settings settings_;
  std::mt19937_64 random_;
  std::size_t shared_bytes_ = 0;
  std::string failure_;
  // Of the block
  std::vector<Thread> threads_;
  std::vector<unsigned> order_;
  std::size_t turn_ = 0;  // where in the order
  Thread* current_ = nullptr;
  unsigned arrived_ = 0;  // at the block's barrier
  int yes_ = 0, yes_of_last_ = 0;
  const Thread* first_at_block_ = nullptr;
  std::vector<std::vector<std::unique_ptr<Group>>> groups_;  // by warp

  SharedWatch watch_{most_shared};
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
  Fiber* fiber_ = nullptr;  // that runs
};

// The machine of this thread's launch; nullptr between launches.
#define STANDIN_THREAD_LOCAL thread_local __attribute__((tls_model("initial-exec")))
extern STANDIN_THREAD_LOCAL Machine* active;
// Held during a launch: threadIdx and the like are there once.
std::mutex& turns();

bool is_forbidden(std::uintptr_t address, std::size_t bytes);
// As a person reads it.
std::string name_of_kernel(const void* kernel);

}  // namespace standin
