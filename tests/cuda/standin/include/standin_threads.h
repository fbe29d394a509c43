// What a thread of a kernel says to the others of its block and to memory, and how it is launched.
#pragma once

#include <cuda_runtime_api.h>

#include <bit>
#include <cstdint>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace standin {

using Where = std::source_location;

// How many threads of the block said yes, once all have come.
int meet_block(bool yes, const char* word, const Where& where);
// The values of all lanes of the mask, once they have come. `source`: the lane whose value is
// wanted, which must be of the mask; -1: none.
const std::uint64_t* meet_warp(unsigned mask, std::uint64_t value, int source, const char* word,
                               const Where& where);
int lane();
[[noreturn]] void trap(const Where& where);
// Fails where an atomic access of these bytes may not be.
void check_atomic(const void* address, std::size_t bytes);

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle(unsigned mask, T value, int source, const char* word, const Where& where) {
  return from_bits<T>(meet_warp(mask, to_bits(value), source, word, where)[source]);
}

// f(old) is the new; gives the old. Threads take turns, so this is atomic as it stands.
template <class T, class F>
__attribute__((noinline, no_sanitize("thread"))) T change(T* address, F f) {
  check_atomic(address, sizeof(T));
  const T old = *address;
  *address = f(old);
  return old;
}

// Runs the kernel now. body: what one thread does.
void run(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*), void* context);
// Whether it may be launched so, and then: into the stream's queue.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> work);

}  // namespace standin

inline void __syncthreads(const standin::Where& where = standin::Where::current()) {
  standin::meet_block(false, "__syncthreads", where);
}
inline int __syncthreads_count(int yes, const standin::Where& where = standin::Where::current()) {
  return standin::meet_block(yes != 0, "__syncthreads_count", where);
}
inline int __syncthreads_or(int yes, const standin::Where& where = standin::Where::current()) {
  return standin::meet_block(yes != 0, "__syncthreads_or", where) > 0;
}
inline int __syncthreads_and(int yes, const standin::Where& where = standin::Where::current()) {
  return standin::meet_block(yes == 0, "__syncthreads_and", where) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const standin::Where& where = standin::Where::current()) {
  standin::meet_warp(mask, 0, -1, "__syncwarp", where);
}
// Of the mask's lanes those that say yes.
inline unsigned __ballot_sync(unsigned mask, int yes,
                              const standin::Where& where = standin::Where::current()) {
  const std::uint64_t* said = standin::meet_warp(mask, yes != 0, -1, "__ballot_sync", where);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0 && said[lane] != 0) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int yes,
                      const standin::Where& where = standin::Where::current()) {
  return __ballot_sync(mask, yes, where) != 0;
}
inline int __all_sync(unsigned mask, int yes,
                      const standin::Where& where = standin::Where::current()) {
  return __ballot_sync(mask, yes, where) == mask;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const standin::Where& where = standin::Where::current()) {
  const int first = standin::lane() & ~(width - 1);
  return standin::shuffle(mask, value, first + (source & (width - 1)), "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  const standin::Where& where = standin::Where::current()) {
  const int lane = standin::lane(), wanted = lane ^ bits;
  // Lanes of later groups are out of reach, as on the device.
  const bool reaches = wanted < (lane | (width - 1)) + 1;
  return standin::shuffle(mask, value, reaches ? wanted : lane, "__shfl_xor_sync", where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   const standin::Where& where = standin::Where::current()) {
  const int lane = standin::lane(), wanted = lane + static_cast<int>(by);
  const bool reaches = wanted <= (lane | (width - 1));
  return standin::shuffle(mask, value, reaches ? wanted : lane, "__shfl_down_sync", where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 const standin::Where& where = standin::Where::current()) {
  const int lane = standin::lane(), wanted = lane - static_cast<int>(by);
  const bool reaches = wanted >= (lane & ~(width - 1));
  return standin::shuffle(mask, value, reaches ? wanted : lane, "__shfl_up_sync", where);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap(const standin::Where& where = standin::Where::current()) {
  standin::trap(where);
}

#define STANDIN_ATOMIC(T)                                                                  \
  inline T atomicAdd(T* address, T by) {                                                   \
    return standin::change(address, [by](T old) { return static_cast<T>(old + by); });     \
  }                                                                                        \
  inline T atomicMax(T* address, T other) {                                                \
    return standin::change(address, [other](T old) { return old > other ? old : other; }); \
  }                                                                                        \
  inline T atomicMin(T* address, T other) {                                                \
    return standin::change(address, [other](T old) { return old < other ? old : other; }); \
  }                                                                                        \
  inline T atomicExch(T* address, T other) {                                               \
    return standin::change(address, [other](T) { return other; });                         \
  }                                                                                        \
  inline T atomicCAS(T* address, T expected, T other) {                                    \
    return standin::change(address, [=](T old) { return old == expected ? other : old; }); \
  }
STANDIN_ATOMIC(int)
STANDIN_ATOMIC(unsigned)
STANDIN_ATOMIC(unsigned long long)
#undef STANDIN_ATOMIC
inline float atomicAdd(float* address, float by) {
  return standin::change(address, [by](float old) { return old + by; });
}
inline double atomicAdd(double* address, double by) {
  return standin::change(address, [by](double old) { return old + by; });
}
inline int atomicOr(int* address, int bits) {
  return standin::change(address, [bits](int old) { return old | bits; });
}
inline unsigned atomicOr(unsigned* address, unsigned bits) {
  return standin::change(address, [bits](unsigned old) { return old | bits; });
}

// Loads and stores with a hint for caches.
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, const std::type_identity_t<T>& value) {
  *address = value;
}
template <class T>
void __stcg(T* address, const std::type_identity_t<T>& value) {
  *address = value;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const void* const address = reinterpret_cast<const void*>(kernel);
  // The arguments are copied now; each thread has its own copies of these, as on the device.
  std::tuple<std::remove_cv_t<Parameters>...> copies(static_cast<Parameters>(arguments)...);
  return standin::launch(*config, address, [=, config = *config] {
    auto call = [&] { std::apply(kernel, copies); };
    standin::run(
        config, address, [](void* context) { (*static_cast<decltype(call)*>(context))(); }, &call);
  });
}
