// Stand-in for CUDA's header of this name: bfloat16 in memory and its conversions, no arithmetic.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "ftrain/base/dtype.h"

struct alignas(2) __nv_bfloat16 {
  __nv_bfloat16() = default;
  __nv_bfloat16(float x) : bits_(ftrain::to_bf16(x).bits) {}
  operator float() const { return ftrain::to_f32(ftrain::BF16{bits_}); }

 private:
  friend __nv_bfloat16 __ushort_as_bfloat16(unsigned short);
  friend unsigned short __bfloat16_as_ushort(__nv_bfloat16);
  unsigned short bits_;
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 made;
  made.bits_ = bits;
  return made;
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) {
  return x.bits_;
}
inline __nv_bfloat16 __float2bfloat16(float x) {
  return x;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  return x;
}
inline float __bfloat162float(__nv_bfloat16 x) {
  return x;
}
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
  return {x, y};
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
  return {x, y};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {x, y};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 x) {
  return {x.x, x.y};
}
inline float2 __bfloat1622float2(__nv_bfloat162 x) {
  return {x.x, x.y};
}
inline float __low2float(__nv_bfloat162 x) {
  return x.x;
}
inline float __high2float(__nv_bfloat162 x) {
  return x.y;
}
