// The functions of device code that plain C++ lacks. Approximate ones are exact here.
#pragma once

#include <math.h>

#include <bit>
#include <cstdint>

#define STANDIN_MIN_MAX(T, A, B)                          \
  inline T min(A a, B b) {                                \
    const T x = static_cast<T>(a), y = static_cast<T>(b); \
    return x < y ? x : y;                                 \
  }                                                       \
  inline T max(A a, B b) {                                \
    const T x = static_cast<T>(a), y = static_cast<T>(b); \
    return x > y ? x : y;                                 \
  }

STANDIN_MIN_MAX(int, int, int)
STANDIN_MIN_MAX(unsigned, unsigned, unsigned)
STANDIN_MIN_MAX(unsigned, unsigned, int)
STANDIN_MIN_MAX(unsigned, int, unsigned)
STANDIN_MIN_MAX(long, long, long)
STANDIN_MIN_MAX(unsigned long, unsigned long, unsigned long)
STANDIN_MIN_MAX(long long, long long, long long)
STANDIN_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef STANDIN_MIN_MAX
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}
inline double min(double a, double b) {
  return fmin(a, b);
}
inline double max(double a, double b) {
  return fmax(a, b);
}

inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
  return 1.0 / sqrt(x);
}
inline float __expf(float x) {
  return expf(x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __saturatef(float x) {
  return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
}
// Rounded once each, never contracted.
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
}
inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline int __float2int_rn(float x) {
  return static_cast<int>(rintf(x));
}
inline float __int2float_rn(int x) {
  return static_cast<float>(x);
}

inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return std::bit_cast<double>(x);
}

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return std::countl_zero(static_cast<unsigned long long>(x));
}
// The lowest set bit counted from 1; 0 where none is.
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline int __ffsll(long long x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>((Wide{a} * b) >> 64);
}
