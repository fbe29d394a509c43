// What cuBLASLt is told, read back from its own descriptors: nothing here needs a GPU.
#include "plugins/devices/cuda/cublaslt/problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "ftrain/base/error.h"

namespace ftrain::cuda {
namespace {

using testing::HasSubstr;

template <class T>
T read(const Operation& operation, cublasLtMatmulDescAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  check_cublas(
      cublasLtMatmulDescGetAttribute(operation.get(), attribute, &value, sizeof value, &written),
      "be read");
  return value;
}

template <class T>
T read(const Layout& layout, cublasLtMatrixLayoutAttribute_t attribute) {
  T value{};
  std::size_t written = 0;
  check_cublas(
      cublasLtMatrixLayoutGetAttribute(layout.get(), attribute, &value, sizeof value, &written),
      "be read");
  return value;
}

template <class T>
T read(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  check_cublas(cublasLtMatmulPreferenceGetAttribute(preference.get(), attribute, &value,
                                                    sizeof value, &written),
               "be read");
  return value;
}

// A matrix as the library's words describe it: column-major unless they say otherwise.
struct Described {
  std::int64_t rows, columns, stride;
  cudaDataType_t type;
  bool transposed = false;

  explicit Described(const Layout& layout, cublasOperation_t operation = CUBLAS_OP_N)
      : rows(static_cast<std::int64_t>(read<std::uint64_t>(layout, CUBLASLT_MATRIX_LAYOUT_ROWS))),
        columns(
            static_cast<std::int64_t>(read<std::uint64_t>(layout, CUBLASLT_MATRIX_LAYOUT_COLS))),
        stride(read<std::int64_t>(layout, CUBLASLT_MATRIX_LAYOUT_LD)),
        type(static_cast<cudaDataType_t>(read<std::uint32_t>(layout, CUBLASLT_MATRIX_LAYOUT_TYPE))),
        transposed(operation == CUBLAS_OP_T) {
    EXPECT_EQ(read<std::int32_t>(layout, CUBLASLT_MATRIX_LAYOUT_ORDER), CUBLASLT_ORDER_COL);
    EXPECT_EQ(read<std::int32_t>(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT), 1);
    EXPECT_GE(stride, rows);
  }
  std::int64_t operated_rows() const { return transposed ? columns : rows; }
  std::int64_t operated_columns() const { return transposed ? rows : columns; }
  std::size_t at(std::int64_t row, std::int64_t column) const {
    return static_cast<std::size_t>(transposed ? row * stride + column : column * stride + row);
  }
};

struct Words {
  Described first, second, result;

  explicit Words(const Problem& problem)
      : first(problem.first, operation(problem, CUBLASLT_MATMUL_DESC_TRANSA)),
        second(problem.second, operation(problem, CUBLASLT_MATMUL_DESC_TRANSB)),
        result(problem.result) {
    EXPECT_EQ(first.operated_rows(), result.rows);
    EXPECT_EQ(first.operated_columns(), second.operated_rows());
    EXPECT_EQ(second.operated_columns(), result.columns);
    EXPECT_EQ(read<std::int32_t>(problem.operation, CUBLASLT_MATMUL_DESC_SCALE_TYPE), CUDA_R_32F);
    EXPECT_EQ(read<std::int32_t>(problem.operation, CUBLASLT_MATMUL_DESC_POINTER_MODE),
              CUBLASLT_POINTER_MODE_HOST);
    EXPECT_EQ(read<std::uint32_t>(problem.operation, CUBLASLT_MATMUL_DESC_EPILOGUE),
              std::uint32_t{CUBLASLT_EPILOGUE_DEFAULT});
  }

  static cublasOperation_t operation(const Problem& problem, cublasLtMatmulDescAttributes_t which) {
    return static_cast<cublasOperation_t>(read<std::int32_t>(problem.operation, which));
  }
};

cublasComputeType_t compute_type(const ProductShape& shape) {
  return static_cast<cublasComputeType_t>(
      read<std::int32_t>(Problem(shape).operation, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE));
}

// A row-major product, and the same bytes multiplied as the descriptors say.
TEST(Problem, IsTheRowMajorProduct) {
  const std::int64_t m = 3, n = 4, k = 5;
  for (const bool a_transposed : {false, true}) {
    for (const bool b_transposed : {false, true}) {
      const ProductShape shape{a_transposed, b_transposed, m, n, k};
      const Words words{Problem(shape)};
      std::vector<int> a(m * k), b(k * n), c(m * n);
      for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<int>(i * i % 13);
      for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int>(i * 7 % 11);
      for (std::int64_t i = 0; i < words.result.rows; ++i) {
        for (std::int64_t j = 0; j < words.result.columns; ++j) {
          for (std::int64_t l = 0; l < words.first.operated_columns(); ++l) {
            c.at(words.result.at(i, j)) += b.at(words.first.at(i, l)) * a.at(words.second.at(l, j));
          }
        }
      }
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          int expected = 0;
          for (std::int64_t l = 0; l < k; ++l) {
            expected += a[static_cast<std::size_t>(a_transposed ? l * m + i : i * k + l)] *
                        b[static_cast<std::size_t>(b_transposed ? j * k + l : l * n + j)];
          }
          EXPECT_EQ(c[static_cast<std::size_t>(i * n + j)], expected) << shape.text();
        }
      }
    }
  }
}

// The last layer of an IResNet both ways, and the three products of a tile of class centers.
std::vector<ProductShape> real_products() {
  std::vector<ProductShape> all;
  for (const std::int64_t batch : {64, 512, 1000}) {
    for (const std::int64_t width : {128, 512}) {
      const std::int64_t inner = 512 * 7 * 7, rows = 23552, last = 85742 % rows;
      all.push_back({.b_transposed = true, .m = batch, .n = width, .k = inner});
      all.push_back({.m = batch, .n = inner, .k = width});
      all.push_back({.a_transposed = true, .m = width, .n = inner, .k = batch});
      for (const std::int64_t tile : {rows, last}) {
        all.push_back({.b_transposed = true, .m = tile, .n = batch, .k = width});
        all.push_back({.a_transposed = true, .m = batch, .n = width, .k = tile});
        all.push_back({.m = tile, .n = width, .k = batch});
      }
    }
  }
  return all;
}

TEST(Problem, DescribesTheProductsOfTrainingInEveryType) {
  for (ProductShape shape : real_products()) {
    for (const auto& [dtype, type] : {std::pair{DType::f32, CUDA_R_32F},
                                      {DType::bf16, CUDA_R_16BF},
                                      {DType::f16, CUDA_R_16F}}) {
      shape.a = shape.b = dtype;
      SCOPED_TRACE(shape.text());
      EXPECT_EQ(refuse_shape(shape), "");
      const Words words{Problem(shape)};
      EXPECT_EQ(words.result.rows, shape.n);
      EXPECT_EQ(words.result.columns, shape.m);
      EXPECT_EQ(words.first.operated_columns(), shape.k);
      EXPECT_EQ(words.first.type, type);
      EXPECT_EQ(words.second.type, type);
      EXPECT_EQ(words.result.type, CUDA_R_32F);
    }
  }
}

TEST(Problem, RoundsToTf32OnlyWhereF32OperandsMayBe) {
  ProductShape shape{.m = 8, .n = 8, .k = 8};
  EXPECT_EQ(compute_type(shape), CUBLAS_COMPUTE_32F);
  shape.tf32 = true;
  EXPECT_EQ(compute_type(shape), CUBLAS_COMPUTE_32F_FAST_TF32);
  shape.a = shape.b = DType::bf16;
  EXPECT_EQ(compute_type(shape), CUBLAS_COMPUTE_32F);
}

TEST(Problem, SaysWhyNot) {
  EXPECT_EQ(refuse_shape({.m = 1, .n = 1, .k = 1}), "");
  EXPECT_THAT(refuse_shape({.m = 2, .n = 0, .k = 3}), HasSubstr("nothing to do"));
  EXPECT_THAT(refuse_shape({.m = 2, .n = 2, .k = 3, .a = DType::bf16}),
              HasSubstr("one type, not bf16[2, 3] x f32[3, 2]"));
  EXPECT_THAT(refuse_shape({.m = 2, .n = 2, .k = 3, .b = DType::i32}), HasSubstr("no i32"));
  EXPECT_THAT(refuse_shape({.m = std::int64_t{1} << 31, .n = 2, .k = 3}), HasSubstr("counts up"));
}

TEST(Preference, LeavesOutSumsInTheOrderOfBlocks) {
  const Preference wanted = preference(12345);
  EXPECT_EQ(read<std::uint64_t>(wanted, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES), 12345u);
  EXPECT_EQ(read<std::uint32_t>(wanted, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK),
            std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto which :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    EXPECT_EQ(read<std::uint32_t>(wanted, which), 16u);
  }
}

cublasLtMatmulAlgo_t with_scheme(std::uint32_t scheme) {
  cublasLtMatmulAlgo_t algorithm{};
  const auto set = [&](cublasLtMatmulAlgoConfigAttributes_t which, auto value) {
    check_cublas(cublasLtMatmulAlgoConfigSetAttribute(&algorithm, which, &value, sizeof value),
                 "be set");
  };
  set(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, std::int32_t{4});
  set(CUBLASLT_ALGO_CONFIG_TILE_ID, std::uint32_t{CUBLASLT_MATMUL_TILE_128x64});
  set(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, scheme);
  return algorithm;
}

TEST(Algorithm, MustSumInOrder) {
  EXPECT_TRUE(sums_in_order(with_scheme(CUBLASLT_REDUCTION_SCHEME_NONE)));
  EXPECT_TRUE(sums_in_order(with_scheme(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)));
  EXPECT_FALSE(sums_in_order(with_scheme(CUBLASLT_REDUCTION_SCHEME_INPLACE)));
  EXPECT_FALSE(sums_in_order(with_scheme(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)));
}

TEST(Algorithm, ComesBackFromItsText) {
  const cublasLtMatmulAlgo_t algorithm = with_scheme(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  const std::string text = text_of(algorithm);
  EXPECT_THAT(text, HasSubstr("splits 4:"));
  EXPECT_THAT(text, HasSubstr("tile " + std::to_string(CUBLASLT_MATMUL_TILE_128x64)));
  const auto back = algorithm_in(text);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(std::memcmp(&*back, &algorithm, sizeof algorithm), 0);
}

TEST(Algorithm, IsNotMadeOfOtherTexts) {
  const std::string good = text_of(with_scheme(0));
  for (const std::string& text :
       {std::string(), std::string("cuda"), good + "0", good.substr(0, good.size() - 1),
        good.substr(0, good.size() - 1) + "G", good + " "}) {
    EXPECT_FALSE(algorithm_in(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace ftrain::cuda
