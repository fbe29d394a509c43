// The arithmetic of a tile of class centers, in the instructions that the job allows.
//
// A tile is `count` rows of the class centers (anywhere in memory) against all features of the
// batch. Its cosines lie class by class, the samples of a class beside each other and padded with
// zeros to whole vectors: everything about the softmax is then a vector over samples. Products
// keep a block of sums in registers, 6 rows by up to 4 vectors, and read the class centers where
// they stand; they fetch the rows that come next while they multiply.
#pragma once

#include <cstdint>
#include <string>

namespace ftrain::cpu::class_center {

// Rows of one block of products. Lists of rows are padded to a multiple of it, by repeating.
inline constexpr std::int64_t row_block = 6;

// What is true of every tile of a walk. `padded`: samples in whole vectors, the stride of cosines.
struct Sizes {
  std::int64_t batch = 0, width = 0, padded = 0;
};

// How cosines become logits where the margin leaves other classes alone: scale * cosine, clamped to
// +-limit (infinity: raw products).
struct Scaling {
  float scale, limit;
};

struct TileFunctions {
  std::int64_t lanes;  // floats of a vector
  // Features [batch, width] as the products want them: by column [padded * width floats], and for
  // row_gradients by row [batch * width in whole vectors], which may be null.
  void (*pack)(const Sizes&, const float* features, float* by_column, float* by_row);
  // 1 / max(length, 1e-12) of each row.
  void (*inverse_lengths)(const Sizes&, const float* const* rows, std::int64_t count,
                          float* inverse);
  // cosines[i][b] = inverse[i] * rows[i] . features[b]; writes whole row blocks. `next`: as many
  // rows to fetch, or null.
  void (*cosines)(const Sizes&, const float* const* rows, std::int64_t count,
                  const float* by_column, const float* inverse, const float* const* next,
                  float* cosines);
  // Cosines -> logits, in place.
  void (*to_logits)(const Sizes&, std::int64_t count, Scaling, float* cosines);
  // The largest logit of each sample, and the sum of exp(logit - largest).
  void (*largest_and_sum)(const Sizes&, std::int64_t count, const float* logits, float* largest,
                          float* sum);
  // Cosines -> d loss / d (row . feature), in place, as if no class were a sample's own:
  // slope[i][b] = factor * inverse[i] * exp(logit - log_sum[b]), 0 where the clamp is active; and
  // along[i] = inverse[i] * sum over b of slope * cosine.
  void (*to_slopes)(const Sizes&, std::int64_t count, Scaling, float factor, const float* log_sum,
                    const float* inverse, float* cosines, float* along);
  // sums[d][b] += sum over i of rows[i][d] * slopes[i][b].
  void (*add_feature_gradients)(const Sizes&, const float* const* rows, std::int64_t count,
                                const float* slopes, const float* const* next, float* sums);
  // gradient[i][:] = sum over b of slopes[i][b] * features[b] - along[i] * rows[i], of whole row
  // blocks. `stride`: of gradient, a multiple of lanes.
  void (*row_gradients)(const Sizes&, const float* const* rows, std::int64_t count,
                        const float* by_row, const float* slopes, const float* along,
                        const float* const* next, float* gradient, std::int64_t stride);
  float (*dot)(const float* a, const float* b, std::int64_t n);
  // values[i] <- exp(values[i] - log_sum) * slopes[i] * factor
  void (*probabilities)(float* values, const float* slopes, float factor, float log_sum,
                        std::int64_t n);
};

// `isa` as in KernelEnvironment.
TileFunctions tile_functions(const std::string& isa);

}  // namespace ftrain::cpu::class_center
