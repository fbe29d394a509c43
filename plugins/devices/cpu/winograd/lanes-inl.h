// The width of a channel block in this target's vectors. Include after hwy/highway.h.
#if defined(FTRAIN_WINOGRAD_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef FTRAIN_WINOGRAD_LANES_INL_H
#undef FTRAIN_WINOGRAD_LANES_INL_H
#else
#define FTRAIN_WINOGRAD_LANES_INL_H
#endif

#include <cstddef>
#include <cstdint>

#include "plugins/devices/cpu/simd/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu::winograd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// As preferred_block() has it: 16 channels for AVX-512, 8 for all others.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
constexpr std::size_t block = 16;
#else
constexpr std::size_t block = 8;
#endif
constexpr std::int64_t wide = static_cast<std::int64_t>(block);

using D = hn::CappedTag<float, block>;
using V = hn::Vec<D>;
constexpr std::size_t lanes = hn::MaxLanes(D());
constexpr std::size_t parts = block / lanes;

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu::winograd
HWY_AFTER_NAMESPACE();
#endif
