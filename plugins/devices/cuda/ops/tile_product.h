// Products of matrices: the one door to them, whoever does the multiplying.
//
//   const auto plan = plan_product({.b_transposed = true, .m = rows, .n = batch, .k = width},
//                                  context);                   // in make(): decides and measures
//   ... scratch.take<std::byte>(plan->scratch_bytes()) ...
//   plan->run(a, b, c, false, scratch, stream);                // in launch(): only enqueues
//
// By cuBLASLt where the context has it and it can, else by the device's own kernel. Sums are f32,
// and their order depends on the shape and the plan alone. Ownership: a plan may be copied about by
// its pointer; the context's Cublas outlives it. Failure: DeviceError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "ftrain/base/dtype.h"
#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {

// c[m, n] = sum over k of a[m, k] b[k, n], row-major, c f32. Transposed: a lies as [k, m], b as
// [n, k]. Addresses are multiples of 16 bytes.
struct ProductShape {
  bool a_transposed = false, b_transposed = false;
  std::int64_t m = 0, n = 0, k = 0;
  DType a = DType::f32, b = DType::f32;  // f32, bf16, f16, also one of each
  bool tf32 = false;                     // f32 operands may be rounded to tf32
  // Where m x n is small beside k: k may be cut into so many runs, of which each has a result of
  // its own. See ProductPlan::splits().
  std::int64_t most_splits = 1;

  bool operator==(const ProductShape&) const = default;
  // "f32[64, 512] x bf16[1000, 512]^T".
  std::string text() const;
};

class ProductPlan {
 public:
  virtual ~ProductPlan() = default;
  // What run() wants, at a multiple of 16 bytes.
  virtual std::size_t scratch_bytes() const { return 0; }
  // Results that run() writes, one after another at c, for the caller to add up: no more than
  // most_splits.
  virtual std::int64_t splits() const { return 1; }
  // Enqueues it. `add`: to what c holds.
  virtual void run(const void* a, const void* b, float* c, bool add, void* scratch,
                   cudaStream_t stream) const = 0;
};

// By cuBLASLt where the context has it, else by the own kernel. `shape.tf32` is the caller's to
// take from the context, or to leave false for exact products.
std::shared_ptr<const ProductPlan> plan_product(const ProductShape& shape, const Context& context);
// By the own kernel.
std::shared_ptr<const ProductPlan> plan_own_product(const ProductShape& shape,
                                                    const Context& context);

}  // namespace ftrain::cuda
