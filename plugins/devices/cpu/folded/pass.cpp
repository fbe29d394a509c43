#include "plugins/devices/cpu/folded/pass.h"

#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/folded/pass.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <std::size_t block, bool by_position, bool prelu, bool add>
void last_rows(const LastSteps& t) {
  using R = Row<block>;
  const typename R::D d;
  const auto zero = hn::Zero(d);
  typename R::V bias[R::parts], slope[R::parts];
  if constexpr (!by_position) load_row<block>(t.bias, bias);
  if constexpr (prelu) load_row<block>(t.slope, slope);
  for (std::int64_t row = 0; row < t.rows; ++row) {
    for (std::size_t k = 0; k < R::parts; ++k) {
      const std::int64_t at =
          row * static_cast<std::int64_t>(block) + static_cast<std::int64_t>(k * R::lanes);
      typename R::V y = hn::LoadU(d, t.y + at);
      if constexpr (by_position) {
        y = hn::Add(y, hn::LoadU(d, t.bias + at));
      } else {
        y = hn::Add(y, bias[k]);
      }
      if constexpr (prelu) y = hn::MulAdd(slope[k], hn::Min(y, zero), hn::Max(y, zero));
      if constexpr (add) y = hn::Add(y, hn::LoadU(d, t.other + at));
      hn::StoreU(y, d, t.y + at);
    }
  }
}

template <std::size_t block, bool by_position>
void last_of_bias(const LastSteps& t) {
  if (t.slope != nullptr) {
    t.other != nullptr ? last_rows<block, by_position, true, true>(t)
                       : last_rows<block, by_position, true, false>(t);
  } else {
    t.other != nullptr ? last_rows<block, by_position, false, true>(t)
                       : last_rows<block, by_position, false, false>(t);
  }
}

void last_steps(const LastSteps& t) {
  if (t.block == 16) {
    t.by_position ? last_of_bias<16, true>(t) : last_of_bias<16, false>(t);
  } else {
    t.by_position ? last_of_bias<8, true>(t) : last_of_bias<8, false>(t);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {

HWY_EXPORT(last_steps);

LastStepsFunction last_steps_for(const std::string& isa) {
  return FTRAIN_SIMD(last_steps, isa);
}

}  // namespace ftrain::cpu
#endif
