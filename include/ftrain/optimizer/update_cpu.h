// Makes an Update out of an optimizer's formula (see ftrain/optimizer/update_formula.h): the host's
// functions, and the table of the device's where the plugin has a .cu (CMake's FTRAIN_CUDA).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "ftrain/model/optimizer.h"
#include "ftrain/optimizer/device_update.h"
#include "ftrain/optimizer/update_formula.h"

// One loop, compiled for each instruction set and chosen as the library is loaded. Every element is
// rounded alike by all of them, since contraction is off. Sanitizers do not take such functions.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define FTRAIN_EVERY_ISA [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define FTRAIN_EVERY_ISA
#endif

namespace ftrain {

template <class Formula>
class HostUpdate final : public Update {
 public:
  HostUpdate(std::string name, Formula formula) : name_(std::move(name)), formula_(formula) {
    functor = &formula_;
    f32 = function_of<float>(std::make_index_sequence<Formula::slots>());
    f64 = function_of<double>(std::make_index_sequence<Formula::slots>());
#ifdef FTRAIN_CUDA
    cuda = device_update<Formula>();
#endif
  }
  std::string text() const override {
    return name_;
  }

 private:
  template <class T, std::size_t... s>
  static UpdateFunction<T> function_of(std::index_sequence<s...>) {
    return run<T, s...>;
  }

  template <class T, std::size_t... s>
  FTRAIN_EVERY_ISA static void run(const void* functor, T* parameter, T* const* slots,
                                   const T* gradient, std::int64_t count,
                                   const UpdateScalars& scalars) {
    const auto step = static_cast<const Formula*>(functor)->template prepare<T>(scalars);
    T* const of_slot[] = {slots[s]..., nullptr};
    for (std::int64_t i = 0; i < count; ++i) step(parameter[i], of_slot[s][i]..., gradient[i]);
  }

  std::string name_;
  Formula formula_;
};

}  // namespace ftrain

#undef FTRAIN_EVERY_ISA
