#include "plugins/devices/cuda/ops/tile_product.h"

#include <algorithm>

#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "plugins/devices/cuda/ops/kernels/tile_product.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {
namespace {

std::int64_t cut(std::int64_t count, std::int64_t each) {
  return (count + each - 1) / each;
}

std::int64_t tiles_of(const ProductShape& shape, std::int64_t side) {
  return cut(shape.m, side) * cut(shape.n, side);
}

// f(T{}) with the C++ type of what the product reads.
template <class F>
void with_operand(DType dtype, const F& f) {
  if (dtype == DType::f32) return f(float{});
  dtype == DType::bf16 ? f(__nv_bfloat16{}) : f(__half{});
}

template <class T>
ProductOperand<T> operand(const void* at, std::int64_t rows, std::int64_t k, bool by_k) {
  const bool whole =
      (by_k ? rows : k) % 4 == 0 && reinterpret_cast<std::uintptr_t>(at) % (4 * sizeof(T)) == 0;
  return {static_cast<const T*>(at), rows, k, by_k, whole};
}

class OwnPlan final : public ProductPlan {
 public:
  OwnPlan(const ProductShape& shape, const Context& context) : shape_(shape) {
    const std::int64_t blocks = context.multiprocessors;
    // Two blocks a multiprocessor, each with 256 steps at least.
    parts_ = std::clamp<std::int64_t>(2 * blocks / std::max<std::int64_t>(tiles_of(shape, 64), 1),
                                      1, std::max<std::int64_t>(cut(shape.k, 256), 1));
    sums_ = shape.most_splits == 1;
    parts_ = std::min(parts_, sums_ ? std::int64_t{64} : shape.most_splits);
    large_ = tiles_of(shape, 128) * parts_ >= blocks && shape.m > 64 && shape.n > 64;
  }

  std::int64_t splits() const override { return sums_ ? 1 : parts_; }
  std::size_t scratch_bytes() const override {
    return sums_ && parts_ > 1 ? static_cast<std::size_t>(parts_ * results()) * sizeof(float) : 0;
  }

  void run(const void* a, const void* b, float* c, bool add, void* scratch,
           cudaStream_t stream) const override {
    if (results() == 0) return;
    if (!sums_ || parts_ == 1) return multiply(a, b, c, add, stream);
    auto* const parts = static_cast<float*>(scratch);
    multiply(a, b, parts, false, stream);
    launch(add_parts, Grid{.blocks = {blocks_for(results(), 256)}}, stream, results(), parts_,
           parts, c, add);
  }

 private:
  std::int64_t results() const { return shape_.m * shape_.n; }

  void multiply(const void* a, const void* b, float* c, bool add, cudaStream_t stream) const {
    with_operand(shape_.a, [&](auto a_type) {
      with_operand(shape_.b, [&](auto b_type) {
        using A = decltype(a_type);
        using B = decltype(b_type);
        const auto start = [&](auto kernel, auto tile) {
          using Tile = decltype(tile);
          const Grid grid{.blocks = {static_cast<unsigned>(tiles_of(shape_, Tile::side)),
                                     static_cast<unsigned>(parts_)},
                          .threads = Tile::threads,
                          .shared = Tile::shared_bytes};
          // Whole steps, so that groups of 4 do not cross its end.
          const std::int64_t run = cut(cut(shape_.k, parts_), Tile::depth) * Tile::depth;
          const bool whole_rows = shape_.n % 4 == 0 && aligned({c});
          launch(kernel, grid, stream, operand<A>(a, shape_.m, shape_.k, shape_.a_transposed),
                 operand<B>(b, shape_.n, shape_.k, !shape_.b_transposed), run, c, add, whole_rows);
        };
        if (large_) {
          start(multiply_tiles<ProductTile<128>, A, B>, ProductTile<128>{});
        } else {
          start(multiply_tiles<ProductTile<64>, A, B>, ProductTile<64>{});
        }
      });
    });
  }

  ProductShape shape_;
  std::int64_t parts_ = 1;  // runs of k
  bool sums_ = false;       // their results itself
  bool large_ = false;      // tiles
};

// Where the library wants one type: what lies in 16 bits is brought to f32 first.
class WidenedPlan final : public ProductPlan {
 public:
  WidenedPlan(const ProductShape& shape, std::shared_ptr<const ProductPlan> product,
              const Context& context)
      : product_(std::move(product)),
        dtype_(shape.a != DType::f32 ? shape.a : shape.b),
        first_(shape.a != DType::f32),
        count_(first_ ? shape.m * shape.k : shape.n * shape.k),
        blocks_(resident_blocks(cut(count_, 8), context)) {}

  std::size_t scratch_bytes() const override { return copy_bytes() + product_->scratch_bytes(); }

  void run(const void* a, const void* b, float* c, bool add, void* scratch,
           cudaStream_t stream) const override {
    auto* const copy = static_cast<float*>(scratch);
    with_operand(dtype_, [&](auto type) {
      using T = decltype(type);
      if constexpr (sizeof(T) == 2) {
        launch(widen_all<T>, Grid{.blocks = {blocks_}}, stream, count_,
               static_cast<const T*>(first_ ? a : b), copy);
      }
    });
    product_->run(first_ ? copy : a, first_ ? b : copy, c, add,
                  static_cast<char*>(scratch) + copy_bytes(), stream);
  }

 private:
  std::size_t copy_bytes() const {
    return (static_cast<std::size_t>(count_) * sizeof(float) + 255) / 256 * 256;
  }

  std::shared_ptr<const ProductPlan> product_;
  DType dtype_;
  bool first_;
  std::int64_t count_;
  unsigned blocks_;
};

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

}  // namespace

std::string ProductShape::text() const {
  const auto matrix = [](DType dtype, std::int64_t rows, std::int64_t columns, bool transposed) {
    return std::string(name_of(dtype)) + "[" + std::to_string(rows) + ", " +
           std::to_string(columns) + "]" + (transposed ? "^T" : "");
  };
  return matrix(a, a_transposed ? k : m, a_transposed ? m : k, a_transposed) + " x " +
         matrix(b, b_transposed ? n : k, b_transposed ? k : n, b_transposed);
}

std::shared_ptr<const ProductPlan> plan_own_product(const ProductShape& shape,
                                                    const Context& context) {
  if (!is_float(shape.a) || !is_float(shape.b)) {
    throw DeviceError("products multiply f32, bf16 and f16, not " + shape.text());
  }
  return std::make_shared<OwnPlan>(shape, context);
}

std::shared_ptr<const ProductPlan> plan_product(const ProductShape& shape, const Context& context) {
  const bool empty = shape.m == 0 || shape.n == 0 || shape.k == 0;
  if (context.cublas == nullptr || empty) return plan_own_product(shape, context);
  ProductShape asked = shape;
  if (asked.a != asked.b && (asked.a == DType::f32 || asked.b == DType::f32)) {
    asked.a = asked.b = DType::f32;
  }
  if (!context.cublas->refuse(asked).empty()) return plan_own_product(shape, context);
  auto plan = context.cublas->plan(asked);
  if (asked == shape) return plan;
  return std::make_shared<WidenedPlan>(shape, std::move(plan), context);
}

}  // namespace ftrain::cuda
