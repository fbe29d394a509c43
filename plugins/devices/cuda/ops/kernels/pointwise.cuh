// Kernels that go over tensors element by element. All are bound by bytes: each tensor is read or
// written once, 16 bytes at a time. `packets` of them are whole; the elements behind go one by one,
// and so do all where an address is not aligned (packets = 0).
#pragma once

#include <cstdint>

#include "ftrain/ops/random.h"
#include "plugins/devices/cuda/ops/kernels/packet.cuh"

namespace ftrain::cuda {

// ---- what is done with an element
struct Plus {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Times {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Rectify {
  __device__ float operator()(float x) const { return x > 0 ? x : 0; }
};
struct RectifyGradient {
  __device__ float operator()(float dy, float x) const { return x > 0 ? dy : 0; }
};
struct LeakBelowZero {
  __device__ float operator()(float x, float slope) const { return x > 0 ? x : slope * x; }
};
struct Shift {
  float summand;
  __device__ float operator()(float x) const { return x + summand; }
};
struct Clamp {
  float low, high;
  __device__ float operator()(float x) const {
    return x < low ? low : x > high ? high : x;  // NaN goes on
  }
};
struct ClampGradient {
  float low, high;
  __device__ float operator()(float dy, float x) const { return x >= low && x <= high ? dy : 0; }
};
struct SquareRoot {
  __device__ float operator()(float x) const { return sqrtf(x); }
};
struct Reciprocal {
  __device__ float operator()(float x) const { return 1 / x; }
};
struct Scale {
  float factor;
  __device__ float operator()(float x) const { return x * factor; }
};

template <class T>
struct Span {
  std::int64_t packets, count;

  // f(first) for this thread's packets, then one(i) for its elements behind them.
  template <class F, class One>
  __device__ void each(const F& f, const One& one) const {
    for (std::int64_t p = thread_number(); p < packets; p += thread_count()) f(p * packet_size<T>);
    for (std::int64_t i = packets * packet_size<T> + thread_number(); i < count;
         i += thread_count()) {
      one(i);
    }
  }
};

template <class T, class F>
__global__ void map_one(F f, Span<T> span, const T* x, T* y) {
  span.each(
      [&](std::int64_t i) {
        Packet<T> p = Packet<T>::load(x + i);
        for (float& element : p.at) element = f(element);
        p.store(y + i);
      },
      [&](std::int64_t i) { y[i] = narrow<T>(f(widen(x[i]))); });
}

template <class T, class F>
__global__ void map_two(F f, Span<T> span, const T* a, const T* b, T* y) {
  span.each(
      [&](std::int64_t i) {
        Packet<T> p = Packet<T>::load(a + i);
        const Packet<T> q = Packet<T>::load(b + i);
        for (int k = 0; k < packet_size<T>; ++k) p.at[k] = f(p.at[k], q.at[k]);
        p.store(y + i);
      },
      [&](std::int64_t i) { y[i] = narrow<T>(f(widen(a[i]), widen(b[i]))); });
}

// x times a scalar that lies on the device.
template <class T>
__global__ void scale_by(Span<T> span, const T* x, const float* factor, T* y) {
  const float by = *factor;
  span.each(
      [&](std::int64_t i) {
        Packet<T> p = Packet<T>::load(x + i);
        for (float& element : p.at) element *= by;
        p.store(y + i);
      },
      [&](std::int64_t i) { y[i] = narrow<T>(widen(x[i]) * by); });
}

template <class T>
__global__ void fill(Span<T> span, const T* value, T* y) {
  Packet<T> p;
  for (float& element : p.at) element = widen(*value);
  span.each([&](std::int64_t i) { p.store(y + i); }, [&](std::int64_t i) { y[i] = *value; });
}

// ---- with a number for each channel: element i is of channel (i / inner) % channels.
struct Channels {
  std::int64_t channels, inner;

  // Divisions of 64 bits are slow.
  __device__ std::int64_t of(std::int64_t i) const {
    if (i >> 31 != 0) return i / inner % channels;
    return static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(inner) %
           static_cast<std::uint32_t>(channels);
  }

  // The channels' numbers for the packet that begins at element i.
  template <class T, class P>
  __device__ Packet<T> packet(const P* values, std::int64_t i) const {
    constexpr int size = packet_size<T>;
    Packet<T> p;
    if (inner % size == 0) {
      const float value = widen(values[of(i)]);
      for (float& element : p.at) element = value;
    } else if (inner == 1 && channels % size == 0) {
      const std::int64_t first = of(i);
      for (int k = 0; k < size; ++k) p.at[k] = widen(values[first + k]);
    } else {
      std::int64_t within = i % inner, channel = of(i);
      for (float& element : p.at) {
        element = widen(values[channel]);
        if (++within < inner) continue;
        within = 0;
        if (++channel == channels) channel = 0;
      }
    }
    return p;
  }
};

template <class T, class F>
__global__ void map_channels(F f, Channels channels, Span<T> span, const T* x, const float* values,
                             T* y) {
  span.each(
      [&](std::int64_t i) {
        Packet<T> p = Packet<T>::load(x + i);
        const Packet<T> q = channels.packet<T>(values, i);
        for (int k = 0; k < packet_size<T>; ++k) p.at[k] = f(p.at[k], q.at[k]);
        p.store(y + i);
      },
      [&](std::int64_t i) { y[i] = narrow<T>(f(widen(x[i]), values[channels.of(i)])); });
}

// A row repeated: y[i] = row[i % columns].
template <class T>
__global__ void repeat(Channels columns, Span<T> span, const T* row, T* y) {
  span.each([&](std::int64_t i) { columns.packet<T>(row, i).store(y + i); },
            [&](std::int64_t i) { y[i] = row[columns.of(i)]; });
}

// ---- dropout. Numbers are drawn by the element's place in row-major order, so the order in memory
// is undone where it is another: `positions` H W of channels-last images, 1 elsewhere.
struct Dropout {
  std::uint64_t key;
  std::int64_t first;
  std::int64_t channels, positions;
  float chance, factor;

  __device__ std::int64_t place(std::int64_t i) const {
    if (positions == 1) return i;
    const std::int64_t sample = i / (channels * positions), rest = i % (channels * positions);
    return (sample * channels + rest % channels) * positions + rest / channels;
  }
  __device__ float operator()(float x, std::int64_t step, std::int64_t i) const {
    return dropout_keeps(key, step, first + place(i), chance) ? x * factor : 0;
  }
};

template <class T>
__global__ void dropout(Dropout drop, Span<T> span, const T* x, const std::int64_t* step, T* y) {
  const std::int64_t at_step = *step;
  span.each(
      [&](std::int64_t i) {
        Packet<T> p = Packet<T>::load(x + i);
        for (int k = 0; k < packet_size<T>; ++k) p.at[k] = drop(p.at[k], at_step, i + k);
        p.store(y + i);
      },
      [&](std::int64_t i) { y[i] = narrow<T>(drop(widen(x[i]), at_step, i)); });
}

}  // namespace ftrain::cuda
