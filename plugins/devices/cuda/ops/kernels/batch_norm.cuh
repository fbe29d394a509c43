// The formulas of batch norms, forward and backward, for the elements of one channel.
//
// A map makes an element of the output from elements of its inputs; a term sums what a channel
// needs of it. A pass (moments.cuh) goes over tensors once with one of each, so that the sums which
// the next step wants cost no reading of their own. An object stands for one channel (of one group
// of samples) in one thread. ftrain/ops/normalization.h has the mathematics.
#pragma once

#include <cuda_runtime.h>

namespace ftrain::cuda::norms {

// What is known of channels beside the activations; what a map or term does not use is nullptr.
struct PerChannel {
  const float *mean = nullptr, *variance = nullptr;                 // [groups, C]
  const float *gamma = nullptr, *beta = nullptr;                    // [C]
  const float* slope = nullptr;                                     // [C]
  const float *gamma_gradient = nullptr, *beta_gradient = nullptr;  // [groups, C]
  float eps = 0;
  float share = 0;  // 1 / elements of a channel in a group, of all ranks
};

__device__ inline float inverse_deviation(float variance, float eps) {
  return 1.0f / sqrtf(variance + eps);
}

// ---- maps: `row` of [groups, C], `channel` of [C]

// Passes its input on to the term; nothing is written.
struct Keep {
  static constexpr int inputs = 1;
  static constexpr bool stores = false;
  __device__ void begin(const PerChannel&, int, int) {}
  __device__ float operator()(const float* v) const { return v[0]; }
};

struct AddTwo {
  static constexpr int inputs = 2;
  static constexpr bool stores = true;
  __device__ void begin(const PerChannel&, int, int) {}
  __device__ float operator()(const float* v) const { return v[0] + v[1]; }
};

enum class After { nothing, prelu, add };

// x (, other) -> y
template <After after>
struct Normalize {
  static constexpr int inputs = after == After::add ? 2 : 1;
  static constexpr bool stores = true;
  float mean, factor, beta, slope = 0;

  __device__ void begin(const PerChannel& of, int row, int channel) {
    mean = of.mean[row];
    factor = of.gamma[channel] * inverse_deviation(of.variance[row], of.eps);
    beta = of.beta[channel];
    if constexpr (after == After::prelu) slope = of.slope[channel];
  }
  __device__ float operator()(const float* v) const {
    const float z = fmaf(v[0] - mean, factor, beta);
    if constexpr (after == After::prelu) return z > 0 ? z : slope * z;
    if constexpr (after == After::add) return z + v[1];
    return z;
  }
};

// dy, x (, other) -> dx (+ other); with a PReLU behind the norm dy is taken through it first.
template <bool prelu, bool add>
struct InputGrad {
  static constexpr int inputs = add ? 3 : 2;
  static constexpr bool stores = true;
  float mean, factor, along, level, beta = 0, slope = 0;

  __device__ void begin(const PerChannel& of, int row, int channel) {
    const float inverse = inverse_deviation(of.variance[row], of.eps);
    mean = of.mean[row];
    factor = of.gamma[channel] * inverse;
    along = of.gamma_gradient[row] * of.share * inverse;
    level = of.beta_gradient[row] * of.share;
    if constexpr (prelu) {
      beta = of.beta[channel];
      slope = of.slope[channel];
    }
  }
  __device__ float operator()(const float* v) const {
    const float centred = v[1] - mean;
    float dy = v[0];
    if constexpr (prelu) {
      if (!(fmaf(centred, factor, beta) > 0)) dy *= slope;
    }
    const float dx = factor * (dy - fmaf(centred, along, level));
    if constexpr (add) return dx + v[2];
    return dx;
  }
};

// dy -> dx with constant statistics.
struct FixedInputGrad {
  static constexpr int inputs = 1;
  static constexpr bool stores = true;
  float factor;

  __device__ void begin(const PerChannel& of, int row, int channel) {
    factor = of.gamma[channel] * inverse_deviation(of.variance[row], of.eps);
  }
  __device__ float operator()(const float* v) const { return v[0] * factor; }
};

// ---- terms: what they sum of the map's result and their own inputs. A thread sums in f32, few
// elements; sum(k, count) are its sums in double, `count` elements having been added.

struct NoSums {
  static constexpr int inputs = 0, sums = 0;
  static constexpr bool primed = false;
  __device__ void begin(const PerChannel&, int, int) {}
  __device__ void add(float, const float*) {}
};

// Sum and sum of squares. The thread's first element is subtracted from all, so that the squares
// keep their digits where the mean is large.
struct MomentSums {
  static constexpr int inputs = 0, sums = 2;
  static constexpr bool primed = true;
  float origin = 0, total = 0, squares = 0;

  __device__ void begin(const PerChannel&, int, int) {}
  __device__ void prime(float first) { origin = first; }
  __device__ void add(float x, const float*) {
    const float distance = x - origin;
    total += distance;
    squares = fmaf(distance, distance, squares);
  }
  __device__ double sum(int k, int count) const {
    const double from = origin, n = count;
    if (k == 0) return total + n * from;
    return squares + from * (2.0 * total + n * from);
  }
};

// Of dy (the map's result) and x: dy (x - mean), dy, and with a PReLU its slope's gradient.
template <bool prelu>
struct GradSums {
  static constexpr int inputs = 1, sums = prelu ? 3 : 2;
  static constexpr bool primed = false;
  float mean, along = 0, level = 0;
  float factor = 0, beta = 0, slope = 0, of_slope = 0;

  __device__ void begin(const PerChannel& of, int row, int channel) {
    mean = of.mean[row];
    if constexpr (prelu) {
      factor = of.gamma[channel] * inverse_deviation(of.variance[row], of.eps);
      beta = of.beta[channel];
      slope = of.slope[channel];
    }
  }
  __device__ void add(float dy, const float* v) {
    const float centred = v[0] - mean;
    if constexpr (prelu) {
      const float z = fmaf(centred, factor, beta);
      if (!(z > 0)) {
        of_slope = fmaf(dy, z, of_slope);
        dy *= slope;
      }
    }
    along = fmaf(dy, centred, along);
    level += dy;
  }
  __device__ double sum(int k, int) const { return k == 0 ? along : k == 1 ? level : of_slope; }
};

// ---- what becomes of the sums of a channel

struct FinishMoments {
  static constexpr int sums = 2;
  static constexpr bool over_groups = false;
  float *mean, *variance;
  double count;

  __device__ void operator()(int row, int, const double* sum) const {
    const double average = sum[0] / count;
    mean[row] = static_cast<float>(average);
    const double spread = sum[1] / count - average * average;
    variance[row] = static_cast<float>(spread > 0 ? spread : 0);
  }
  __device__ void end(int, double) const {}
};

template <bool prelu>
struct FinishGrad {
  static constexpr int sums = prelu ? 3 : 2;
  static constexpr bool over_groups = prelu;  // the last sum, [C]
  const float* variance;
  float eps;
  float *gamma, *beta, *slope;

  __device__ void operator()(int row, int, const double* sum) const {
    gamma[row] = static_cast<float>(sum[0] / sqrt(double(variance[row]) + double(eps)));
    beta[row] = static_cast<float>(sum[1]);
  }
  __device__ void end(int channel, double total) const {
    if constexpr (prelu) slope[channel] = static_cast<float>(total);
  }
};

}  // namespace ftrain::cuda::norms
