// Elements as kernels read and write them: stored as f32, bf16 or f16, computed with as f32, and
// taken 16 bytes at a time where addresses and counts allow. What is too large for f16 is stored as
// infinite, never as the largest number: the step's check must see it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace ftrain::cuda {

__device__ inline float widen(float x) {
  return x;
}
__device__ inline float widen(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

__device__ inline float widen(__half x) {
  return __half2float(x);
}

template <class T>
__device__ T narrow(float x) {
  if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(x);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(x);
  else
    return x;
}

// Two neighbours of 16 bits, the first in the lower half.
template <class T>
__device__ std::uint32_t pack(float first, float second) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(first, second);
    return static_cast<std::uint32_t>(__half_as_ushort(both.y)) << 16 | __half_as_ushort(both.x);
  } else {
    const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    return static_cast<std::uint32_t>(__bfloat16_as_ushort(both.y)) << 16 |
           __bfloat16_as_ushort(both.x);
  }
}
template <class T>
__device__ void unpack(std::uint32_t pair, float& first, float& second) {
  if constexpr (std::is_same_v<T, __half>) {
    first = __half2float(__ushort_as_half(static_cast<unsigned short>(pair)));
    second = __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16)));
  } else {  // the upper half of an f32
    first = __builtin_bit_cast(float, pair << 16);
    second = __builtin_bit_cast(float, pair & 0xffff0000u);
  }
}

template <class T>
inline constexpr int packet_size = 16 / static_cast<int>(sizeof(T));

// The elements of one 128-bit load, as f32.
template <class T>
struct Packet {
  float at[packet_size<T>];

  // `from` and `to` are 16-byte aligned.
  static __device__ Packet load(const T* from) {
    Packet p;
    if constexpr (sizeof(T) == sizeof(float)) {
      const float4 four = *reinterpret_cast<const float4*>(from);
      p.at[0] = four.x;
      p.at[1] = four.y;
      p.at[2] = four.z;
      p.at[3] = four.w;
    } else {
      const uint4 words = *reinterpret_cast<const uint4*>(from);
      unpack<T>(words.x, p.at[0], p.at[1]);
      unpack<T>(words.y, p.at[2], p.at[3]);
      unpack<T>(words.z, p.at[4], p.at[5]);
      unpack<T>(words.w, p.at[6], p.at[7]);
    }
    return p;
  }

  __device__ void store(T* to) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      *reinterpret_cast<float4*>(to) = make_float4(at[0], at[1], at[2], at[3]);
    } else {
      *reinterpret_cast<uint4*>(to) = make_uint4(packed(0), packed(2), packed(4), packed(6));
    }
  }

 private:
  __device__ std::uint32_t packed(int lane) const { return pack<T>(at[lane], at[lane + 1]); }
};

// Kernels in two widths: whole packets where the layout lets them be, else one element at a time.
template <int width, class T>
__device__ void load_lanes(const T* from, float (&lanes)[width]) {
  if constexpr (width == 1) {
    lanes[0] = widen(*from);
  } else {
    static_assert(width == packet_size<T>);
    const Packet<T> p = Packet<T>::load(from);
    for (int k = 0; k < width; ++k) lanes[k] = p.at[k];
  }
}
template <int width, class T>
__device__ void store_lanes(T* to, const float (&lanes)[width]) {
  if constexpr (width == 1) {
    *to = narrow<T>(lanes[0]);
  } else {
    static_assert(width == packet_size<T>);
    Packet<T> p;
    for (int k = 0; k < width; ++k) p.at[k] = lanes[k];
    p.store(to);
  }
}

// This thread's number in a grid of one dimension, and how many there are.
__device__ inline std::int64_t thread_number() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t thread_count() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace ftrain::cuda
