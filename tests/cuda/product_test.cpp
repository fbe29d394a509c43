// Products of matrices: the own kernel against the plain sum, on the stand-in for a GPU, in every
// order and type of operands, for sizes on both sides of the tiles' ends; and who is asked to
// multiply.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ftrain/base/dtype.h"
#include "ftrain/base/error.h"
#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "plugins/devices/cuda/ops/tile_product.h"
#include "tests/cuda/standin/standin.h"
#include "tests/plugins/devices/cpu/guarded.h"

namespace ftrain::cuda {
namespace {

using cpu::Guarded;
using Floats = std::vector<float>;

// As it lies in memory, and what a kernel reads of it.
struct Matrix {
  Floats values;
  std::vector<std::uint8_t> bytes;

  Matrix(std::int64_t count, DType dtype, std::mt19937& random)
      : values(static_cast<std::size_t>(count)), bytes(values.size() * size_of(dtype)) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      float& x = values[i];
      x = std::uniform_real_distribution<float>(-1, 1)(random);
      if (dtype == DType::f32) {
        std::memcpy(&bytes[4 * i], &x, 4);
      } else if (dtype == DType::bf16) {
        const BF16 stored = to_bf16(x);
        x = to_f32(stored);
        std::memcpy(&bytes[2 * i], &stored, 2);
      } else {
        const F16 stored = to_f16(x);
        x = to_f32(stored);
        std::memcpy(&bytes[2 * i], &stored, 2);
      }
    }
  }
};

Context on(int multiprocessors, Cublas* cublas = nullptr) {
  Context context;
  context.multiprocessors = multiprocessors;
  context.cublas = cublas;
  return context;
}

// A product with its operands, run between guard bytes.
class Trial {
 public:
  explicit Trial(const ProductShape& shape, bool add = false)
      : shape_(shape),
        add_(add),
        a_(shape.m * shape.k, shape.a, random_),
        b_(shape.n * shape.k, shape.b, random_),
        old_(shape.m * shape.n, DType::f32, random_) {}

  // The results of all parts of k.
  Floats by(const ProductPlan& plan) {
    const auto splits = static_cast<std::size_t>(plan.splits());
    Guarded a(a_.bytes.size(), a_.bytes.data()), b(b_.bytes.size(), b_.bytes.data());
    Guarded c(splits * old_.bytes.size()), scratch(plan.scratch_bytes());
    if (add_) {
      for (std::size_t s = 0; s < splits; ++s) {
        std::memcpy(static_cast<char*>(c.data()) + s * old_.bytes.size(), old_.bytes.data(),
                    old_.bytes.size());
      }
    }
    {
      std::vector<standin::Forbidden> around;
      for (const Guarded* buffer : {&a, &b, &c, &scratch}) {
        const auto* const begin = static_cast<const std::byte*>(buffer->data());
        around.emplace_back(begin - Guarded::margin, Guarded::margin);
        around.emplace_back(begin + buffer->size(), Guarded::margin);
      }
      plan.run(a.data(), b.data(), static_cast<float*>(c.data()), add_, scratch.data(), nullptr);
      EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
    }
    for (const Guarded* buffer : {&a, &b, &c, &scratch}) EXPECT_TRUE(buffer->intact());
    const auto* const results = static_cast<const float*>(c.data());
    return {results, results + c.size() / sizeof(float)};
  }

  void check(const Floats& results, std::int64_t splits = 1) const {
    const auto at = [](const Matrix& matrix, std::int64_t i) {
      return double{matrix.values[static_cast<std::size_t>(i)]};
    };
    for (std::int64_t i = 0; i < shape_.m; ++i) {
      for (std::int64_t j = 0; j < shape_.n; ++j) {
        double expected = add_ ? at(old_, i * shape_.n + j) * static_cast<double>(splits) : 0;
        for (std::int64_t l = 0; l < shape_.k; ++l) {
          expected += at(a_, shape_.a_transposed ? l * shape_.m + i : i * shape_.k + l) *
                      at(b_, shape_.b_transposed ? j * shape_.k + l : l * shape_.n + j);
        }
        double got = 0;
        for (std::int64_t s = 0; s < splits; ++s) {
          got += results[static_cast<std::size_t>((s * shape_.m + i) * shape_.n + j)];
        }
        ASSERT_NEAR(got, expected, 2e-6 * std::sqrt(static_cast<double>(shape_.k + 1)))
            << shape_.text() << " at " << i << ", " << j;
      }
    }
  }

 private:
  std::mt19937 random_{1};
  ProductShape shape_;
  bool add_;
  Matrix a_, b_, old_;
};

class Products : public testing::Test {
 protected:
  void TearDown() override { standin::set(standin::Settings{}); }
};

constexpr std::int64_t sizes[][3] = {{1, 1, 1},     {64, 64, 16},  {65, 63, 17}, {130, 129, 33},
                                     {128, 132, 8}, {7, 200, 150}, {68, 72, 0},  {2, 3, 40}};

TEST_F(Products, AreThePlainSumInEveryOrderOfOperands) {
  for (const auto& [m, n, k] : sizes) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        for (const bool add : {false, true}) {
          const ProductShape shape{a_transposed, b_transposed, m, n, k};
          Trial trial(shape, add);
          trial.check(trial.by(*plan_own_product(shape, on(1))));
        }
      }
    }
  }
}

TEST_F(Products, TakeOperandsOf16Bits) {
  constexpr DType types[] = {DType::f32, DType::bf16, DType::f16};
  for (const DType a : types) {
    for (const DType b : types) {
      for (const bool transposed : {false, true}) {
        for (const std::int64_t m : {66, 68}) {
          const ProductShape shape{transposed, !transposed, m, 70, 36, a, b};
          Trial trial(shape);
          trial.check(trial.by(*plan_own_product(shape, on(1))));
        }
      }
    }
  }
}

// Neither the side of the tiles nor the order of threads can be seen in the bits.
TEST_F(Products, HaveTheSameBitsByEveryTile) {
  for (const bool transposed : {false, true}) {
    const ProductShape shape{transposed, transposed, 140, 136, 45};
    Trial trial(shape);
    const Floats large = trial.by(*plan_own_product(shape, on(1)));
    standin::set(standin::Settings{standin::Order::reverse, 1});
    EXPECT_EQ(trial.by(*plan_own_product(shape, on(1))), large);
    EXPECT_EQ(trial.by(*plan_own_product(shape, on(100))), large);
  }
}

TEST_F(Products, CutALongSumIntoPartsWhereAskedTo) {
  for (const std::int64_t k : {1100, 1024, 300, 100}) {
    const ProductShape shape{.a_transposed = true, .m = 9, .n = 20, .k = k, .most_splits = 8};
    const auto plan = plan_own_product(shape, on(2));
    EXPECT_EQ(plan->splits(), std::min<std::int64_t>(4, (k + 255) / 256));
    for (const bool add : {false, true}) {
      Trial trial(shape, add);
      trial.check(trial.by(*plan), plan->splits());
    }
  }
}

// Such a sum has more blocks than its result has tiles, in the same way.
TEST_F(Products, AddThePartsOfALongSumThemselves) {
  for (const std::int64_t k : {1100, 512}) {
    const ProductShape shape{.b_transposed = true, .m = 9, .n = 20, .k = k};
    const auto plan = plan_own_product(shape, on(2));
    EXPECT_EQ(plan->splits(), 1);
    EXPECT_EQ(plan->scratch_bytes(), static_cast<std::size_t>(k < 1024 ? 2 : 4) * 9 * 20 * 4);
    for (const bool add : {false, true}) {
      Trial trial(shape, add);
      trial.check(trial.by(*plan));
    }
  }
}

TEST_F(Products, NothingIsDoneForNoRows) {
  const ProductShape shape{.m = 0, .n = 5, .k = 3};
  EXPECT_TRUE(Trial(shape).by(*plan_own_product(shape, on(1))).empty());
}

// Multiplies f32 by the own kernel, and says what it was asked.
class Witness final : public Cublas {
 public:
  std::string version() const override { return "1"; }
  std::string refuse(const ProductShape& shape) const override {
    return shape.a == shape.b && shape.a != DType::f16 ? "" : "not that";
  }
  std::shared_ptr<const ProductPlan> plan(const ProductShape& shape) override {
    asked.push_back(shape.text() + (shape.tf32 ? " tf32" : ""));
    return plan_own_product(shape, on(1));
  }
  std::string choices() const override { return {}; }
  void repeat(std::string_view) override {}

  std::vector<std::string> asked;
};

TEST_F(Products, AreTheLibrarysWhereItTakesThem) {
  Witness library;
  const ProductShape shape{.b_transposed = true, .m = 3, .n = 5, .k = 8, .tf32 = true};
  Trial trial(shape);
  trial.check(trial.by(*plan_product(shape, on(1, &library))));
  EXPECT_EQ(library.asked, std::vector<std::string>{"f32[3, 8] x f32[5, 8]^T tf32"});

  ProductShape refused = shape;
  refused.a = refused.b = DType::f16;
  ProductShape empty = shape;
  empty.k = 0;
  for (const ProductShape& other : {refused, empty}) {
    Trial own(other);
    own.check(own.by(*plan_product(other, on(1, &library))));
  }
  EXPECT_EQ(library.asked.size(), 1u);
}

TEST_F(Products, BringOneOperandOf16BitsToF32ForTheLibrary) {
  for (const bool first : {true, false}) {
    for (const DType narrow : {DType::bf16, DType::f16}) {
      Witness library;
      ProductShape shape{.a_transposed = true, .m = 13, .n = 5, .k = 11};
      (first ? shape.a : shape.b) = narrow;
      Trial trial(shape);
      trial.check(trial.by(*plan_product(shape, on(1, &library))));
      EXPECT_EQ(library.asked, std::vector<std::string>{"f32[11, 13]^T x f32[11, 5]"});
    }
  }
}

TEST_F(Products, OfIntegersAreRefused) {
  EXPECT_THROW(plan_own_product({.m = 1, .n = 1, .k = 1, .a = DType::i32}, on(1)), DeviceError);
}

}  // namespace
}  // namespace ftrain::cuda
