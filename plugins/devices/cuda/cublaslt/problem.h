// A product as cuBLASLt is told of it, and an algorithm of cuBLASLt as text.
//
// cuBLASLt's matrices are column-major. A row-major [r, c] is the same bytes as its transpose
// there, so c = a b is asked as c^T = b^T a^T: the library's first operand is our b, its second our
// a. Ownership: the objects are destroyed with the Problem. Threads: one. Failure: DeviceError.
// Nothing here needs a GPU.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "plugins/devices/cuda/ops/tile_product.h"

namespace ftrain::cuda {

// DeviceError "cuBLASLt cannot WHAT: the library was not initialized".
void check_cublas(cublasStatus_t status, const std::string& what);

// Why cuBLASLt has no say in such a product; empty: it may be asked.
std::string refuse_shape(const ProductShape& shape);

template <class T, cublasStatus_t (*destroy)(T*)>
struct DestroyWith {
  void operator()(T* object) const { destroy(object); }
};
template <class T, cublasStatus_t (*destroy)(T*)>
using Described = std::unique_ptr<T, DestroyWith<T, destroy>>;
using Operation = Described<cublasLtMatmulDescOpaque_t, cublasLtMatmulDescDestroy>;
using Layout = Described<cublasLtMatrixLayoutOpaque_t, cublasLtMatrixLayoutDestroy>;
using Preference = Described<cublasLtMatmulPreferenceOpaque_t, cublasLtMatmulPreferenceDestroy>;

struct Problem {
  explicit Problem(const ProductShape& shape);

  Operation operation;
  Layout first, second, result;  // our b, our a, c
};

// Algorithms with so much workspace at most, for addresses at multiples of 16 bytes, that sum in
// one order: along k alone, or parts of k by themselves and then these.
Preference preference(std::size_t workspace_limit);
// Does it sum in one order?
bool sums_in_order(const cublasLtMatmulAlgo_t& algorithm);

// "algorithm 66 tile 20 stages 35 cluster 2 splits 1: 42000000...": what people read, and the
// algorithm as bytes, which the same version of the library takes again.
std::string text_of(const cublasLtMatmulAlgo_t& algorithm);
// Nothing when the text is none of text_of()'s.
std::optional<cublasLtMatmulAlgo_t> algorithm_in(std::string_view text);

}  // namespace ftrain::cuda
