#include "tests/cuda/standin/block.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <utility>

#include "cuda_runtime.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace ftrain::cuda {
// What kernels call shared memory. It ends where a multiprocessor's does.
alignas(1024) unsigned char dynamic_shared[standin::most_shared];
}  // namespace ftrain::cuda

namespace standin {
namespace {

using ftrain::cuda::dynamic_shared;

uint3 position(unsigned index, const dim3& extent) {
  return {index % extent.x, index / extent.x % extent.y, index / (extent.x * extent.y)};
}

std::string text(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

std::string hex(unsigned mask) {
  char made[16];
  std::snprintf(made, sizeof made, "0x%08x", mask);
  return made;
}

// Literals of one source file are mostly one.
bool same(const char* a, const char* b) {
  return a == b || std::strcmp(a, b) == 0;
}
bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() && same(a.file_name(), b.file_name());
}

}  // namespace

STANDIN_THREAD_LOCAL Machine* active = nullptr;

std::mutex& turns() {
  static std::mutex mutex;
  return mutex;
}

void Machine::run(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*),
                  void* context, const Settings& settings) {
  kernel_ = kernel;
  body_ = body;
  context_ = context;
  settings_ = settings;
  random_.seed(settings.seed);
  shared_bytes_ = config.dynamicSmemBytes;
  failure_.clear();
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  threads_.resize(blockDim.x * blockDim.y * blockDim.z);
  groups_.resize((threads_.size() + 31) / 32);
  ASAN_POISON_MEMORY_REGION(dynamic_shared + shared_bytes_, most_shared - shared_bytes_);
  active = this;
  for (const unsigned block : order_of(gridDim.x * gridDim.y * gridDim.z)) {
    blockIdx = position(block, gridDim);
    run_block();
    if (!failure_.empty()) break;
  }
  active = nullptr;
  ASAN_UNPOISON_MEMORY_REGION(dynamic_shared, most_shared);
  if (failure_.empty()) return;
  for (const auto& fiber : fibers_) {
    if (!fiber->done()) fiber->forget();
  }
  throw Misuse("kernel " + name_of_kernel(kernel_) + ", " + failure_);
}

std::vector<unsigned> Machine::order_of(unsigned count) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (settings_.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (settings_.order == Order::shuffled) std::shuffle(order.begin(), order.end(), random_);
  return order;
}

void Machine::run_block() {
  for (unsigned i = 0; i < threads_.size(); ++i) {
    threads_[i] = {};
    threads_[i].index = i;
  }
  for (auto& groups : groups_) groups.clear();
  arrived_ = 0;
  yes_ = 0;
  order_ = order_of(static_cast<unsigned>(threads_.size()));
  // NaN in every floating type: what is read unwritten spoils the result in any build.
  std::memset(dynamic_shared, 0xff, shared_bytes_);
  watch_.begin_block(shared_bytes_, groups_.size());
  free_.clear();
  for (const auto& fiber : fibers_) free_.push_back(fiber.get());
  for (std::size_t ended = 0; ended < threads_.size();) {
    bool moved = false;
    for (turn_ = 0; turn_ < order_.size(); ++turn_) {
      Thread& thread = threads_[order_[turn_]];
      if (thread.state != State::fresh && thread.state != State::ready) continue;
      moved = true;
      turn(thread);
      if (!failure_.empty()) return;
    }
    ended = static_cast<std::size_t>(
        std::count_if(threads_.begin(), threads_.end(),
                      [](const Thread& thread) { return thread.state == State::ended; }));
    if (!moved && ended < threads_.size()) {
      failure_ = why_stuck();
      return;
    }
  }
}

Fiber* Machine::free_fiber() {
  if (free_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>([this] { work(); }));
    return fibers_.back().get();
  }
  Fiber* const fiber = free_.back();
  free_.pop_back();
  return fiber;
}

void Machine::become(Thread& thread) {
  current_ = &thread;
  threadIdx = position(thread.index, blockDim);
}

void Machine::turn(Thread& thread) {
  fiber_ = thread.state == State::fresh ? free_fiber() : thread.fiber;
  become(thread);
  fiber_->resume();
  if (fiber_->done()) free_.push_back(fiber_);
}

// Threads that never wait share a fiber.
void Machine::work() {
  for (;;) {
    Thread& thread = *current_;
    thread.fiber = fiber_;
    body_(context_);
    current_->state = State::ended;
    do ++turn_;
    while (turn_ < order_.size() && threads_[order_[turn_]].state == State::ended);
    if (turn_ == order_.size()) return;
    if (threads_[order_[turn_]].state != State::fresh) {
      --turn_;  // for the next round of the loop over all
      return;
    }
    become(threads_[order_[turn_]]);
  }
}

void Machine::wait(State state, const char* word, const Where& where, unsigned mask) {
  Thread& self = *current_;
  self.state = state;
  self.word = word;
  self.where = where;
  self.mask = mask;
  self.fiber->pause();
}

void Machine::note(const std::string& what) {
  failure_ = place(current_->index) + ": " + what;
}

void Machine::stop() {
  for (;;) current_->fiber->pause();
}

int Machine::meet_block(bool yes, const char* word, const Where& where) {
  if (arrived_ == 0) {
    first_at_block_ = current_;
  } else if (!same(first_at_block_->word, word) || !same(first_at_block_->where, where)) {
    fail([&] {
      return "comes to " + std::string(word) + " (" + text(where) + "), where " +
             waiting(*first_at_block_);
    });
  }
  yes_ += yes ? 1 : 0;
  if (++arrived_ < threads_.size()) {
    wait(State::at_block, word, where, 0);
    return yes_of_last_;
  }
  yes_of_last_ = yes_;
  yes_ = 0;
  arrived_ = 0;
  watch_.barrier();
  for (Thread& thread : threads_) {
    if (thread.state == State::at_block) thread.state = State::ready;
  }
  return yes_of_last_;
}

Machine::Group& Machine::group_of(std::vector<std::unique_ptr<Group>>& groups, unsigned mask) {
  for (const auto& group : groups) {
    if (group->arrived != 0 && group->mask == mask) return *group;
  }
  for (const auto& group : groups) {
    if (group->arrived == 0 && group->unread == 0) return *group;
  }
  return *groups.emplace_back(std::make_unique<Group>());
}

const std::uint64_t* Machine::meet_warp(unsigned mask, std::uint64_t value, int source,
                                        const char* word, const Where& where) {
  const unsigned own = static_cast<unsigned>(lane());
  const unsigned warp = current_->index / 32;
  const auto here = [&] { return std::string(word) + " (" + text(where) + ")"; };
  if ((mask >> own & 1u) == 0) {
    fail([&] { return "comes to " + here() + " with mask " + hex(mask) + ", which lacks it"; });
  }
  if (source >= 0 && (source > 31 || (mask >> source & 1u) == 0)) {
    fail([&] {
      return "asks lane " + std::to_string(source) + " in " + here() +
             ", which is not of the mask " + hex(mask);
    });
  }
  Group& group = group_of(groups_[warp], mask);
  if (group.arrived == 0) {
    group.mask = mask;
  } else {
    const unsigned first = static_cast<unsigned>(std::countr_zero(group.arrived));
    const Thread& other = threads_[warp * 32 + first];
    if (!same(other.word, word) || !same(other.where, where)) {
      fail([&] { return "comes to " + here() + ", where " + waiting(other); });
    }
  }
  group.arrived |= 1u << own;
  group.values[own] = value;
  if (group.arrived != mask) {
    wait(State::at_warp, word, where, mask);
    --group.unread;
    return group.values.data();
  }
  group.arrived = 0;
  group.unread = std::popcount(mask) - 1;
  if (same(word, "__syncwarp")) watch_.barrier(warp);
  for (unsigned i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) != 0 && i != own) threads_[warp * 32 + i].state = State::ready;
  }
  return group.values.data();
}

void Machine::access(std::uintptr_t address, std::size_t bytes, bool writes, bool aligned) {
  const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(dynamic_shared);
  if (offset < most_shared) {
    std::string wrong = watch_.access(offset, bytes, current_->index, writes);
    if (!wrong.empty()) fail([&] { return std::exchange(wrong, {}); });
  } else if (is_forbidden(address, bytes)) {
    fail([&] {
      return std::string(writes ? "writes " : "reads ") + std::to_string(bytes) +
             " bytes outside a buffer";
    });
  }
  if (aligned && address % bytes != 0) {
    fail([&] {
      return "accesses " + std::to_string(bytes) + " bytes at once where only " +
             std::to_string(address & -address) + " are aligned";
    });
  }
}

void Machine::atomic(std::uintptr_t address, std::size_t bytes) {
  const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(dynamic_shared);
  if (offset < most_shared) {
    std::string wrong = watch_.atomic(offset, bytes, sees_accesses());
    if (!wrong.empty()) fail([&] { return std::exchange(wrong, {}); });
  } else if (is_forbidden(address, bytes)) {
    fail([&] { return "changes " + std::to_string(bytes) + " bytes outside a buffer"; });
  }
}

std::string Machine::place(unsigned thread) const {
  const auto list = [](const uint3& at) {
    return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
           ")";
  };
  return "block " + list(blockIdx) + ", thread " + list(position(thread, blockDim));
}

std::string Machine::waiting(const Thread& thread) const {
  const std::string self = "thread " + std::to_string(thread.index);
  if (thread.state == State::ended) return self + " has returned";
  std::string made = self + " waits at " + thread.word + " (" + text(thread.where) + ")";
  if (thread.state == State::at_warp) made += " with mask " + hex(thread.mask);
  return made;
}

// Nobody can go on. Of those who wait for one that has returned or waits elsewhere, the first.
std::string Machine::why_stuck() const {
  for (const Thread& thread : threads_) {
    if (thread.state == State::ended) continue;
    const unsigned warp = thread.index / 32 * 32;
    for (const Thread& other : threads_) {
      const bool wanted = thread.state == State::at_block ||
                          (other.index - warp < 32 && (thread.mask >> (other.index - warp) & 1u));
      const bool comes = other.state == thread.state &&
                         (thread.state == State::at_block || other.mask == thread.mask);
      if (!wanted || comes) continue;
      return place(thread.index) + ": waits at " + thread.word + " (" + text(thread.where) +
             "), where " + waiting(other) + ", and so for ever";
    }
    if (thread.state == State::at_warp && threads_.size() - warp < 32) {
      return place(thread.index) + ": waits at " + thread.word + " (" + text(thread.where) +
             ") for lanes of mask " + hex(thread.mask) + " that the block of " +
             std::to_string(threads_.size()) + " threads does not have";
    }
  }
  return place(0) + ": the block is stuck";
}

}  // namespace standin
