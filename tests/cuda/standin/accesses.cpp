// What instrumented code calls at each of its accesses. The calls are those that the compiler makes
// for ThreadSanitizer; its own library is not linked.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/cuda/standin/block.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

namespace standin {
namespace {

struct Range {
  std::uintptr_t begin, end;
};

// Sorted, apart from each other. Changed between launches.
std::vector<Range>& forbidden() {
  static std::vector<Range>* const ranges = new std::vector<Range>;  // engines outlive main()
  return *ranges;
}

}  // namespace

Forbidden::Forbidden(const void* begin, std::size_t bytes) {
  if (bytes == 0) return;
  begin_ = reinterpret_cast<std::uintptr_t>(begin);
  const std::scoped_lock lock(turns());
  auto& ranges = forbidden();
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), begin_,
                                      [](auto at, const Range& range) { return at < range.begin; });
  ranges.insert(after, {begin_, begin_ + bytes});
  ASAN_POISON_MEMORY_REGION(begin, bytes);
}

Forbidden::Forbidden(Forbidden&& other) noexcept : begin_(std::exchange(other.begin_, 0)) {}

Forbidden::~Forbidden() {
  if (begin_ == 0) return;
  const std::scoped_lock lock(turns());
  auto& ranges = forbidden();
  const auto own = std::find_if(ranges.begin(), ranges.end(),
                                [this](const Range& range) { return range.begin == begin_; });
  ASAN_UNPOISON_MEMORY_REGION(reinterpret_cast<const void*>(begin_), own->end - begin_);
  ranges.erase(own);
}

bool is_forbidden(std::uintptr_t address, std::size_t bytes) {
  const auto& ranges = forbidden();
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), address + bytes - 1,
                                      [](auto at, const Range& range) { return at < range.begin; });
  return after != ranges.begin() && std::prev(after)->end > address;
}

bool sees_accesses() {
#ifdef __SANITIZE_ADDRESS__
  return false;
#else
  return true;
#endif
}

}  // namespace standin

#ifndef __SANITIZE_ADDRESS__
namespace {

void see(const void* address, std::size_t bytes, bool writes, bool aligned) {
  using standin::active;
  if (active == nullptr) return;
  active->access(reinterpret_cast<std::uintptr_t>(address), bytes, writes, aligned);
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_vptr_update(void*, void*) {}

#define STANDIN_ACCESS(bytes)                         \
  void __tsan_read##bytes(void* address) {            \
    see(address, bytes, false, true);                 \
  }                                                   \
  void __tsan_write##bytes(void* address) {           \
    see(address, bytes, true, true);                  \
  }                                                   \
  void __tsan_unaligned_read##bytes(void* address) {  \
    see(address, bytes, false, false);                \
  }                                                   \
  void __tsan_unaligned_write##bytes(void* address) { \
    see(address, bytes, true, false);                 \
  }
STANDIN_ACCESS(1)
STANDIN_ACCESS(2)
STANDIN_ACCESS(4)
STANDIN_ACCESS(8)
STANDIN_ACCESS(16)

void __tsan_read_range(void* address, std::size_t bytes) {
  see(address, bytes, false, false);
}
void __tsan_write_range(void* address, std::size_t bytes) {
  see(address, bytes, true, false);
}

// Atomics of the host's own code, such as the guards of static variables.
#define STANDIN_HOST_ATOMIC(bits, T)                                                           \
  T __tsan_atomic##bits##_load(const volatile T* address, int) {                               \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                         \
  }                                                                                            \
  void __tsan_atomic##bits##_store(volatile T* address, T value, int) {                        \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                            \
  T __tsan_atomic##bits##_exchange(volatile T* address, T value, int) {                        \
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                              \
  }                                                                                            \
  T __tsan_atomic##bits##_fetch_add(volatile T* address, T value, int) {                       \
    return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);                               \
  }                                                                                            \
  T __tsan_atomic##bits##_fetch_sub(volatile T* address, T value, int) {                       \
    return __atomic_fetch_sub(address, value, __ATOMIC_SEQ_CST);                               \
  }                                                                                            \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* address, T* expected, T value, \
                                                    int, int) {                                \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST,      \
                                       __ATOMIC_SEQ_CST);                                      \
  }
STANDIN_HOST_ATOMIC(8, std::uint8_t)
STANDIN_HOST_ATOMIC(32, std::uint32_t)
STANDIN_HOST_ATOMIC(64, std::uint64_t)

}  // extern "C"
#endif
