// Row loops of the class-center walk, in the instructions that the machine has.
#pragma once

#include <cstdint>

namespace ftrain::cpu::class_center {

// sum of a[i] b[i]
float dot(const float* a, const float* b, std::int64_t n);
// values[i] <- scale * factor[i] * values[i], clamped to [-limit, limit]. factor may be null: 1.
void scale_clamped(float* values, const float* factor, float scale, float limit, std::int64_t n);
// The largest of n values, and the sum of exp(value - largest).
struct MaxSum {
  float largest, sum;
};
MaxSum max_sum(const float* values, std::int64_t n);
// values[i] <- exp(values[i] - log_sum) * slope * (slopes ? slopes[i] : |values[i]| < limit).
void probabilities(float* values, const float* slopes, float slope, float limit, float log_sum,
                   std::int64_t n);
// g <- scale * (g - along * w)
void project(float* g, const float* w, float along, float scale, std::int64_t n);
// a[i] *= b[i]
void multiply(float* a, const float* b, std::int64_t n);
// a[i] += b[i]
void accumulate(float* a, const float* b, std::int64_t n);

}  // namespace ftrain::cpu::class_center
