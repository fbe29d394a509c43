// A few neighbouring elements that a thread takes with one load, as f32: a width that is chosen by
// the kernel, where packet.cuh's is always 16 bytes.
#pragma once

#include <cstdint>

#include "plugins/devices/cuda/ops/kernels/packet.cuh"

namespace ftrain::cuda {

// The bits of so many bytes, in one register or the few that one load fills.
template <int bytes>
struct BitsOf;
template <>
struct BitsOf<2> {
  using type = std::uint16_t;
};
template <>
struct BitsOf<4> {
  using type = std::uint32_t;
};
template <>
struct BitsOf<8> {
  using type = uint2;
};
template <>
struct BitsOf<16> {
  using type = uint4;
};

template <class T, int width>
struct Lanes {
  static constexpr int bytes = width * static_cast<int>(sizeof(T));
  using Bits = typename BitsOf<bytes>::type;
  float at[width];

  // `from` and `to` are aligned to `bytes`.
  static __device__ Lanes load(const T* from) { return Lanes(fetch(from)); }
  // Several loads are under way at a time only where nothing waits for the first: what may be left
  // out is fetched by a condition, and taken apart after all are.
  static __device__ Bits fetch(const T* from) { return *reinterpret_cast<const Bits*>(from); }
  static __device__ Bits fetch_if(bool wanted, const T* from) {
    Bits bits{};
    if (wanted) bits = fetch(from);
    return bits;
  }

  Lanes() = default;
  explicit __device__ Lanes(const Bits& bits) {
    if constexpr (bytes == 2) {
      float none;
      unpack<T>(bits, at[0], none);
    } else if constexpr (width == 1) {
      at[0] = __builtin_bit_cast(float, bits);
    } else if constexpr (bytes == 8) {
      split(0, bits.x);
      split(2, bits.y);
    } else if constexpr (width == 4) {
      at[0] = __builtin_bit_cast(float, bits.x);
      at[1] = __builtin_bit_cast(float, bits.y);
      at[2] = __builtin_bit_cast(float, bits.z);
      at[3] = __builtin_bit_cast(float, bits.w);
    } else {
      split(0, bits.x);
      split(2, bits.y);
      split(4, bits.z);
      split(6, bits.w);
    }
  }

  static __device__ Lanes zero() { return Lanes(Bits{}); }

  __device__ void store(T* to) const {
    if constexpr (width == 1) {
      *to = narrow<T>(at[0]);
    } else if constexpr (bytes == 8) {
      *reinterpret_cast<uint2*>(to) = make_uint2(join(0), join(2));
    } else if constexpr (width == 4) {
      *reinterpret_cast<float4*>(to) = make_float4(at[0], at[1], at[2], at[3]);
    } else {
      *reinterpret_cast<uint4*>(to) = make_uint4(join(0), join(2), join(4), join(6));
    }
  }

 private:
  __device__ void split(int lane, std::uint32_t pair) { unpack<T>(pair, at[lane], at[lane + 1]); }
  __device__ std::uint32_t join(int lane) const { return pack<T>(at[lane], at[lane + 1]); }
};

}  // namespace ftrain::cuda
