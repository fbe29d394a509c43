#include "plugins/devices/cuda/cublaslt/problem.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain::cuda {
namespace {

cudaDataType_t cuda_type(DType dtype) {
  if (dtype == DType::f32) return CUDA_R_32F;
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_16F;
}

bool is_multiplied(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

Layout layout(DType dtype, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t made = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&made, cuda_type(dtype), static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), rows),
               "describe a matrix");
  return Layout(made);
}

template <class T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check_cublas(
      cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
      "take a preference");
}

// 0 where the library does not say.
std::int64_t config(const cublasLtMatmulAlgo_t& algorithm,
                    cublasLtMatmulAlgoConfigAttributes_t attribute) {
  std::int32_t word = 0;
  std::uint16_t half = 0;
  const bool small = attribute == CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID ||
                     attribute == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID;
  std::size_t written = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoConfigGetAttribute(
      &algorithm, attribute, small ? static_cast<void*>(&half) : &word,
      small ? sizeof half : sizeof word, &written);
  if (status != CUBLAS_STATUS_SUCCESS) return 0;
  return small ? half : word;
}

}  // namespace

void check_cublas(cublasStatus_t status, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError("cuBLASLt cannot " + what + ": " + cublasLtGetStatusString(status));
}

std::string refuse_shape(const ProductShape& shape) {
  if (!is_multiplied(shape.a)) return "multiplies no " + std::string(name_of(shape.a));
  if (!is_multiplied(shape.b)) return "multiplies no " + std::string(name_of(shape.b));
  if (shape.a != shape.b) return "wants operands of one type, not " + shape.text();
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  for (const std::int64_t extent : {shape.m, shape.n, shape.k}) {
    if (extent < 1) return "has nothing to do for " + shape.text();
    if (extent > most) return "counts up to " + std::to_string(most) + ", not " + shape.text();
  }
  return {};
}

Problem::Problem(const ProductShape& shape) {
  const bool rounds = shape.tf32 && shape.a == DType::f32;
  cublasLtMatmulDesc_t made = nullptr;
  check_cublas(cublasLtMatmulDescCreate(
                   &made, rounds ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "describe a product");
  operation.reset(made);
  const auto transpose = [&](cublasLtMatmulDescAttributes_t which, bool transposed) {
    const cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_cublas(cublasLtMatmulDescSetAttribute(made, which, &value, sizeof value),
                 "transpose an operand");
  };
  transpose(CUBLASLT_MATMUL_DESC_TRANSA, shape.b_transposed);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, shape.a_transposed);
  first =
      shape.b_transposed ? layout(shape.b, shape.k, shape.n) : layout(shape.b, shape.n, shape.k);
  second =
      shape.a_transposed ? layout(shape.a, shape.m, shape.k) : layout(shape.a, shape.k, shape.m);
  result = layout(DType::f32, shape.n, shape.m);
}

Preference preference(std::size_t workspace_limit) {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), "take preferences");
  Preference wanted(made);
  set(wanted, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_limit});
  // In place is left out: blocks would add to the result in turns, rounding to its type each time.
  set(wanted, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto which :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(wanted, which, std::uint32_t{16});
  }
  return wanted;
}

bool sums_in_order(const cublasLtMatmulAlgo_t& algorithm) {
  const std::int64_t scheme = config(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  return scheme == CUBLASLT_REDUCTION_SCHEME_NONE ||
         scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
}

std::string text_of(const cublasLtMatmulAlgo_t& algorithm) {
  std::string text;
  for (const auto& [name, attribute] :
       {std::pair{"algorithm ", CUBLASLT_ALGO_CONFIG_ID},
        std::pair{" tile ", CUBLASLT_ALGO_CONFIG_TILE_ID},
        std::pair{" stages ", CUBLASLT_ALGO_CONFIG_STAGES_ID},
        std::pair{" cluster ", CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID},
        std::pair{" splits ", CUBLASLT_ALGO_CONFIG_SPLITK_NUM}}) {
    text += name + std::to_string(config(algorithm, attribute));
  }
  text += ": ";
  unsigned char bytes[sizeof algorithm];
  std::memcpy(bytes, &algorithm, sizeof bytes);
  for (const unsigned char byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", byte);
    text += digits;
  }
  return text;
}

std::optional<cublasLtMatmulAlgo_t> algorithm_in(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  text.remove_prefix(std::min(text.size(), text.rfind(' ') + 1));
  cublasLtMatmulAlgo_t algorithm;
  unsigned char bytes[sizeof algorithm];
  if (text.size() != 2 * sizeof bytes) return {};
  for (std::size_t i = 0; i < sizeof bytes; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return {};
    bytes[i] = static_cast<unsigned char>(high * 16 + low);
  }
  std::memcpy(&algorithm, bytes, sizeof bytes);
  return algorithm;
}

}  // namespace ftrain::cuda
