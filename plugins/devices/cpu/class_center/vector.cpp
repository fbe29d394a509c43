#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/class_center/vector.cpp"
#include "plugins/devices/cpu/class_center/vector.h"

// Highway's order: foreach_target compiles this file once a target, then highway.h.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <limits>

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu::class_center {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using N = std::int64_t;

// Calls body(i) for full vectors and tail(i) for the rest.
template <class Body, class Tail>
inline void each(N n, Body body, Tail tail) {
  const N lanes = static_cast<N>(hn::Lanes(D()));
  N i = 0;
  for (; i + lanes <= n; i += lanes) body(i);
  for (; i < n; ++i) tail(i);
}

float Dot(const float* a, const float* b, N n) {
  const D d;
  auto s0 = hn::Zero(d), s1 = hn::Zero(d);
  const N lanes = static_cast<N>(hn::Lanes(d));
  N i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), s1);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(s0, s1)));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void ScaleClamped(float* values, const float* factor, float scale, float limit, N n) {
  const D d;
  const auto s = hn::Set(d, scale), high = hn::Set(d, limit), low = hn::Set(d, -limit);
  each(
      n,
      [&](N i) {
        auto v = hn::Mul(hn::LoadU(d, values + i), s);
        if (factor) v = hn::Mul(v, hn::LoadU(d, factor + i));
        hn::StoreU(hn::Min(hn::Max(v, low), high), d, values + i);
      },
      [&](N i) {
        const float v = values[i] * scale * (factor ? factor[i] : 1.0f);
        values[i] = v < -limit ? -limit : v > limit ? limit : v;
      });
}

MaxSum MaxAndSum(const float* values, N n) {
  const D d;
  auto top = hn::Set(d, -std::numeric_limits<float>::infinity());
  float largest = -std::numeric_limits<float>::infinity();
  each(
      n, [&](N i) { top = hn::Max(top, hn::LoadU(d, values + i)); },
      [&](N i) { largest = values[i] > largest ? values[i] : largest; });
  const float of_lanes = hn::GetLane(hn::MaxOfLanes(d, top));
  largest = of_lanes > largest ? of_lanes : largest;
  const auto shift = hn::Set(d, largest);
  auto sums = hn::Zero(d);
  float sum = 0;
  each(
      n, [&](N i) { sums = hn::Add(sums, hn::Exp(d, hn::Sub(hn::LoadU(d, values + i), shift))); },
      [&](N i) { sum += hn::GetLane(hn::Exp(d, hn::Set(d, values[i] - largest))); });
  // NaNs: Max may drop them, the sum keeps them.
  return {largest, sum + hn::GetLane(hn::SumOfLanes(d, sums))};
}

void Probabilities(float* values, const float* slopes, float slope, float limit, float log_sum,
                   N n) {
  const D d;
  const auto shift = hn::Set(d, log_sum), constant = hn::Set(d, slope), top = hn::Set(d, limit);
  const auto one = [&](auto v, auto factor) {
    const auto p = hn::Mul(hn::Exp(d, hn::Sub(v, shift)), factor);
    return slopes ? p : hn::IfThenElseZero(hn::Lt(hn::Abs(v), top), p);
  };
  each(
      n,
      [&](N i) {
        const auto factor = slopes ? hn::Mul(hn::LoadU(d, slopes + i), constant) : constant;
        hn::StoreU(one(hn::LoadU(d, values + i), factor), d, values + i);
      },
      [&](N i) {
        const auto factor = hn::Set(d, slopes ? slopes[i] * slope : slope);
        values[i] = hn::GetLane(one(hn::Set(d, values[i]), factor));
      });
}

void Project(float* g, const float* w, float along, float scale, N n) {
  const D d;
  const auto a = hn::Set(d, along), s = hn::Set(d, scale);
  each(
      n,
      [&](N i) {
        const auto v = hn::NegMulAdd(a, hn::LoadU(d, w + i), hn::LoadU(d, g + i));
        hn::StoreU(hn::Mul(v, s), d, g + i);
      },
      [&](N i) { g[i] = scale * (g[i] - along * w[i]); });
}

void Multiply(float* a, const float* b, N n) {
  const D d;
  each(
      n, [&](N i) { hn::StoreU(hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, a + i); },
      [&](N i) { a[i] *= b[i]; });
}

void Accumulate(float* a, const float* b, N n) {
  const D d;
  each(
      n, [&](N i) { hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, a + i); },
      [&](N i) { a[i] += b[i]; });
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu::class_center
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu::class_center {

HWY_EXPORT(Dot);
HWY_EXPORT(ScaleClamped);
HWY_EXPORT(MaxAndSum);
HWY_EXPORT(Probabilities);
HWY_EXPORT(Project);
HWY_EXPORT(Multiply);
HWY_EXPORT(Accumulate);

float dot(const float* a, const float* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(Dot)(a, b, n);
}
void scale_clamped(float* values, const float* factor, float scale, float limit, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(ScaleClamped)(values, factor, scale, limit, n);
}
MaxSum max_sum(const float* values, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(MaxAndSum)(values, n);
}
void probabilities(float* values, const float* slopes, float slope, float limit, float log_sum,
                   std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(Probabilities)(values, slopes, slope, limit, log_sum, n);
}
void project(float* g, const float* w, float along, float scale, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(Project)(g, w, along, scale, n);
}
void multiply(float* a, const float* b, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(Multiply)(a, b, n);
}
void accumulate(float* a, const float* b, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(Accumulate)(a, b, n);
}

}  // namespace ftrain::cpu::class_center
#endif
