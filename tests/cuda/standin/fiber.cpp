#include "tests/cuda/standin/fiber.h"

#include <sys/mman.h>

#include <new>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace standin {
namespace {

// Touched page by page as it is used; below it a page that may not be.
constexpr std::size_t guard_bytes = 4096, stack_bytes = 256 << 10;

struct KeptStack {
  void deallocate(boost::context::stack_context&) {}
};

}  // namespace

Fiber::Fiber(std::function<void()> work) : work_(std::move(work)) {
  void* const memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  mprotect(memory_, guard_bytes, PROT_NONE);
  prepare();
}

Fiber::~Fiber() {
  leave();
  munmap(memory_, guard_bytes + stack_bytes);
}

void Fiber::prepare() {
  boost::context::stack_context stack;
  stack.size = stack_bytes;
  stack.sp = memory_ + guard_bytes + stack_bytes;
  inside_ = boost::context::fiber(std::allocator_arg,
                                  boost::context::preallocated(stack.sp, stack.size, stack),
                                  KeptStack{}, [this](boost::context::fiber&& outside) {
                                    outside_ = std::move(outside);
                                    arrive();
                                    for (;;) {
                                      work_();
                                      done_ = true;
                                      pause();
                                    }
                                    return std::move(outside_);
                                  });
}

void Fiber::leave() {
  // Destroying the handle would unwind the stack; only its memory is wanted again.
  alignas(boost::context::fiber) std::byte forgotten[sizeof(boost::context::fiber)];
  new (forgotten) boost::context::fiber(std::move(inside_));
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(memory_ + guard_bytes, stack_bytes);
#endif
}

void Fiber::forget() {
  leave();
  inside_fake_ = nullptr;
  done_ = true;
  prepare();
}

void Fiber::arrive() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(inside_fake_, &outside_stack_, &outside_size_);
#endif
}

void Fiber::resume() {
  done_ = false;
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, memory_ + guard_bytes, stack_bytes);
  inside_ = std::move(inside_).resume();
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  inside_ = std::move(inside_).resume();
#endif
}

void Fiber::pause() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&inside_fake_, outside_stack_, outside_size_);
#endif
  outside_ = std::move(outside_).resume();
  arrive();
}

}  // namespace standin
