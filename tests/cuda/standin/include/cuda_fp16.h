// Stand-in for CUDA's header of this name: half precision in memory and its conversions, no
// arithmetic.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ftrain/base/dtype.h"

struct alignas(2) __half {
  __half() = default;
  __half(float x) : bits_(ftrain::to_f16(x).bits) {}
  operator float() const { return ftrain::to_f32(ftrain::F16{bits_}); }

 private:
  friend __half __ushort_as_half(unsigned short);
  friend unsigned short __half_as_ushort(__half);
  unsigned short bits_;
};

struct alignas(4) __half2 {
  __half x, y;
};

inline __half __ushort_as_half(unsigned short bits) {
  __half made;
  made.bits_ = bits;
  return made;
}
inline unsigned short __half_as_ushort(__half x) {
  return x.bits_;
}
inline __half __float2half(float x) {
  return x;
}
inline __half __float2half_rn(float x) {
  return x;
}
inline float __half2float(__half x) {
  return x;
}
inline __half2 __halves2half2(__half x, __half y) {
  return {x, y};
}
inline __half2 __floats2half2_rn(float x, float y) {
  return {x, y};
}
inline __half2 __float22half2_rn(float2 x) {
  return {x.x, x.y};
}
inline float2 __half22float2(__half2 x) {
  return {x.x, x.y};
}
inline float __low2float(__half2 x) {
  return x.x;
}
inline float __high2float(__half2 x) {
  return x.y;
}
