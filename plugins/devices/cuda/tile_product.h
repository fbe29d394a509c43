// The product of a tile of class centers with the batch: the one door to it, whoever does the
// multiplying.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace ftrain::cuda {

// c[m, n] = sum over k of a[m, k] b[k, n], row-major f32. Transposed: a lies as [k, m], b as [n,
// k].
struct Product {
  bool a_transposed = false, b_transposed = false;
  std::int64_t m = 0, n = 0, k = 0;
  const float *a = nullptr, *b = nullptr;
  float* c = nullptr;
  bool add = false;  // to what c holds
  // Where m x n is small beside k: k is cut into so many runs, and the sum over run s goes to
  // c + s * m * n, for the caller to add up.
  std::int64_t splits = 1;
};

// Enqueues it. The order of sums depends on the sizes alone.
void tile_product(const Product& product, cudaStream_t stream);

}  // namespace ftrain::cuda
