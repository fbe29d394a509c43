// Products in the place of cuBLASLt's: operands as they are stored (or rounded to tf32), sums in
// f32.
#include <utility>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "tests/cuda/standin/oracle.h"
#include "tests/cuda/standin/standin.h"

namespace ftrain::cuda {
namespace {

class OraclePlan final : public ProductPlan {
 public:
  explicit OraclePlan(const ProductShape& shape)
      : tf32_(shape.tf32),
        a_{shape.a, shape.a_transposed ? Shape{shape.k, shape.m} : Shape{shape.m, shape.k}, ""},
        b_{shape.b, shape.b_transposed ? Shape{shape.n, shape.k} : Shape{shape.k, shape.n}, ""},
        op_(product(shape, a_, b_)) {}

  void run(const void* a, const void* b, float* c, bool add, void*,
           cudaStream_t stream) const override {
    standin::enqueue(stream, [=, a_type = a_, b_type = b_, tf32 = tf32_, op = op_] {
      standin::HostNode& host = op.here();
      standin::widen(a_type, a, host.input(0).data());
      standin::widen(b_type, b, host.input(1).data());
      if (tf32) {
        standin::round_to_tf32(host.input(0));
        standin::round_to_tf32(host.input(1));
      }
      host.run();
      const std::vector<float>& product = host.output();
      for (std::size_t i = 0; i < product.size(); ++i) c[i] = product[i] + (add ? c[i] : 0.0f);
    });
  }

 private:
  static standin::HostOp product(const ProductShape& shape, const TensorType& a,
                                 const TensorType& b) {
    Graph graph;
    const Value left = graph.input("a", {DType::f32, a.shape, ""});
    const Value right = graph.input("b", {DType::f32, b.shape, ""});
    return standin::HostOp(ops::matmul(left, right, shape.a_transposed, shape.b_transposed).node());
  }

  bool tf32_;
  TensorType a_, b_;
  standin::HostOp op_;
};

class OracleCublas final : public Cublas {
 public:
  std::string version() const override { return "of the stand-in"; }
  std::string refuse(const ProductShape&) const override { return {}; }
  std::shared_ptr<const ProductPlan> plan(const ProductShape& shape) override {
    return std::make_shared<OraclePlan>(shape);
  }
  std::string choices() const override { return {}; }
  void repeat(std::string_view) override {}
};

}  // namespace

std::unique_ptr<Cublas> open_cublas(const CublasOptions&) {
  return std::make_unique<OracleCublas>();
}

}  // namespace ftrain::cuda
