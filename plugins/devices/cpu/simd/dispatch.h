// Choosing a Highway function for the instruction set that the job allows.
//
// Highway compiles the functions between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE once for each
// target. They work on one tile or chunk and know no threads; kernels hold a pointer to the best
// one and call it from parallel_for. Unlike HWY_DYNAMIC_DISPATCH nothing here is global, so kernels
// for several instruction sets live side by side.
//
// Include this before hwy/foreach_target.h.
#pragma once

// x86-64 has four: no SIMD before SSE4, SSE4, AVX2, AVX-512.
#define HWY_DISABLED_TARGETS HWY_SSSE3

#include <hwy/targets.h>

#include <string>

namespace ftrain::cpu {

// The index into Highway's tables of the best target that both the machine and `isa` ("plain",
// "avx2", "avx512" or empty for any) allow. Inline, because it depends on the targets compiled.
inline std::size_t target_index(const std::string& isa) {
  std::int64_t allowed = hwy::SupportedTargets();
#if HWY_ARCH_X86
  if (isa == "plain") allowed &= ~std::int64_t{HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL};
  if (isa == "avx2") allowed &= ~std::int64_t{HWY_AVX3 | HWY_AVX3_DL};
#else
  (void)isa;
#endif
  hwy::ChosenTarget chosen;
  chosen.Update(allowed);
  return chosen.GetIndex();
}

}  // namespace ftrain::cpu

// The pointer to function FUNCTION, named in HWY_EXPORT.
#define FTRAIN_SIMD(FUNCTION, ISA) HWY_DISPATCH_TABLE(FUNCTION)[::ftrain::cpu::target_index(ISA)]
