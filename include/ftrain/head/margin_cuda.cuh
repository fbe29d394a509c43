// Makes a DeviceMargin (ftrain/model/device_functions.h) out of a head's functor. A head's .cu is
//
//   #include "ftrain/head/margin_cuda.cuh"
//   template const void* ftrain::device_margin<Functor>();
//
// Both kernels over tiles are bound by the bytes of the tile: each cosine is read once and, where
// it changes, written once.
#pragma once

#include <cuda_runtime.h>

#include "ftrain/cuda/launch.cuh"
#include "ftrain/head/margin_formula.h"
#include "ftrain/model/device_functions.h"

namespace ftrain::cuda {

template <class Functor>
__global__ void margin_target(MarginFormula<Functor, float> formula,
                              const MarginRow<float>* samples, std::int64_t batch,
                              Dual<float>* logits) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b < batch) logits[b] = formula.target(samples[b]);
}

template <class Functor>
__global__ void margin_term_gradient(MarginFormula<Functor, float> formula,
                                     const MarginRow<float>* samples, std::int64_t batch,
                                     const float* log_sum, float gradient_scale, std::int64_t terms,
                                     float* gradient) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= batch) return;
  const MarginRow<float> sample = samples[b];
  const float factor = expm1f(formula.target(sample).value - log_sum[b]) * gradient_scale;
  float slopes[most_margin_terms];
  formula.target_term_slopes(sample, slopes);
  for (int i = 0; i < most_margin_terms; ++i) {
    if (i < terms) gradient[i * batch + b] = factor * slopes[i];
  }
}

// A thread has one sample and one slice: rows slice, slice + slices, ... of the tile. The block's
// threads are `lanes` neighbouring samples of one slice, then the next slice's.
template <class Functor>
__global__ void margin_statistics(MarginFormula<Functor, float> formula, DeviceMarginTile tile,
                                  bool keep, int lanes, std::int64_t slices, float* running) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * lanes + threadIdx.x % lanes;
  const std::int64_t slice =
      static_cast<std::int64_t>(blockIdx.y) * (blockDim.x / lanes) + threadIdx.x / lanes;
  if (b >= tile.batch || slice >= slices) return;
  const MarginRow<float> sample = tile.samples[b];
  const std::int64_t own = static_cast<std::int64_t>(tile.own[b]) - tile.first;
  float* const pair = running + 2 * (slice * tile.batch + b);
  float largest = pair[0], sum = pair[1];
  constexpr int ahead = 4;  // loads under way at once
  for (std::int64_t first = slice; first < tile.rows; first += ahead * slices) {
    float cosines[ahead];
    bool used[ahead];
    for (int i = 0; i < ahead; ++i) {
      const std::int64_t r = first + i * slices;
      used[i] = r < tile.rows && (tile.sampled == nullptr || tile.sampled[r] >= 0);
      cosines[i] = 0;
      if (!used[i]) continue;
      const std::int64_t at = r * tile.batch + b;
      cosines[i] = tile.kept != nullptr ? tile.kept[at] : tile.cosines[at] * tile.inverse[r];
    }
    for (int i = 0; i < ahead; ++i) {
      const std::int64_t r = first + i * slices;
      if (keep && r < tile.rows) tile.cosines[r * tile.batch + b] = cosines[i];
      if (!used[i]) continue;
      const float logit =
          r == own ? formula.target(sample).value : formula.other(cosines[i], sample).value;
      // One exponential for either order of the two.
      const float smaller = expf(-fabsf(logit - largest));
      if (logit > largest) {
        sum = sum * smaller + 1.0f;
        largest = logit;
      } else {
        sum += smaller;  // NaN goes on
      }
    }
  }
  pair[0] = largest;
  pair[1] = sum;
}

// A warp has a row.
template <class Functor>
__global__ void margin_gradient(MarginFormula<Functor, float> formula, DeviceMarginTile tile,
                                const float* log_sum, float gradient_scale, float* along) {
  const unsigned lane = threadIdx.x % 32;
  const std::int64_t r =
      static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (r >= tile.rows) return;  // the whole warp
  const bool used = tile.sampled == nullptr || tile.sampled[r] >= 0;
  const float inverse = used ? tile.inverse[r] : 0.0f;
  float* const cosines = tile.cosines + r * tile.batch;
  const float* const kept = tile.kept != nullptr ? tile.kept + r * tile.batch : nullptr;
  float sum = 0;
  for (std::int64_t b = lane; b < tile.batch; b += 32) {
    float scaled = 0;
    if (used) {
      const float cosine = kept != nullptr ? kept[b] : cosines[b] * inverse;
      const MarginRow<float> sample = tile.samples[b];
      const bool own = tile.own[b] == tile.first + r;
      const Dual<float> made = own ? formula.target(sample) : formula.other(cosine, sample);
      const float exponent = made.value - log_sum[b];
      const float probability = own ? expm1f(exponent) : expf(exponent);
      const float slope = probability * made.slope * gradient_scale;
      sum += slope * cosine;
      scaled = slope * inverse;
    }
    cosines[b] = scaled;
  }
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
  if (lane == 0) along[r] = sum;
}

template <class Functor>
class MarginDriver {
 public:
  static constexpr DeviceMargin table() {
    return {target, forward, backward,
            has_term_slopes<Functor> ? &MarginDriver::target_term_gradient : nullptr};
  }

 private:
  static constexpr unsigned threads = 128;

  static MarginFormula<Functor, float> formula(const void* settings) {
    return static_cast<const MarginSettings<Functor>*>(settings)->template formula<float>();
  }
  static unsigned parts(std::int64_t count, std::int64_t of) {
    return static_cast<unsigned>((count + of - 1) / of);
  }

  static void target(const void* settings, const MarginRow<float>* samples, std::int64_t batch,
                     Dual<float>* logits, void* stream) {
    if (batch == 0) return;
    launch(margin_target<Functor>, Grid{.blocks = {parts(batch, threads)}, .threads = threads},
           static_cast<cudaStream_t>(stream), formula(settings), samples, batch, logits);
  }

  static void target_term_gradient(const void* settings, const MarginRow<float>* samples,
                                   std::int64_t batch, const float* log_sum, float gradient_scale,
                                   std::int64_t terms, float* gradient, void* stream) {
    if (batch == 0) return;
    launch(margin_term_gradient<Functor>,
           Grid{.blocks = {parts(batch, threads)}, .threads = threads},
           static_cast<cudaStream_t>(stream), formula(settings), samples, batch, log_sum,
           gradient_scale, terms, gradient);
  }

  static void forward(const void* settings, const DeviceMarginTile& tile, bool keep,
                      std::int64_t slices, float* running, void* stream) {
    if (tile.rows == 0 || tile.batch == 0) return;
    const int lanes = tile.batch > 64 ? 128 : tile.batch > 32 ? 64 : 32;
    launch(margin_statistics<Functor>,
           Grid{.blocks = {parts(tile.batch, lanes), parts(slices, threads / lanes)},
                .threads = threads},
           static_cast<cudaStream_t>(stream), formula(settings), tile, keep, lanes, slices,
           running);
  }

  static void backward(const void* settings, const DeviceMarginTile& tile, const float* log_sum,
                       float gradient_scale, float* along, void* stream) {
    if (tile.rows == 0) return;
    launch(margin_gradient<Functor>,
           Grid{.blocks = {parts(tile.rows, threads / 32)}, .threads = threads},
           static_cast<cudaStream_t>(stream), formula(settings), tile, log_sum, gradient_scale,
           along);
  }
};

}  // namespace ftrain::cuda

namespace ftrain {

template <class Functor>
const void* device_margin() {
  static constexpr DeviceMargin table = cuda::MarginDriver<Functor>::table();
  return &table;
}

}  // namespace ftrain
