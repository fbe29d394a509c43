// Products of matrices on a real GPU: the own kernel against the plain sum, cuBLASLt's algorithms
// against the own kernel; captured and replayed; measured, kept and repeated.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "ftrain/base/dtype.h"
#include "gpu_fixture.h"
#include "plugins/devices/cuda/ops/tile_product.h"

namespace ftrain::cuda {
namespace {

using Floats = std::vector<float>;

// An operand as it lies, and what is read of it.
struct Operand {
  Operand(std::int64_t count, DType dtype, std::mt19937& random)
      : values(static_cast<std::size_t>(count)), bytes(values.size() * size_of(dtype)) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      float& x = values[i];
      x = std::uniform_real_distribution<float>(-1, 1)(random);
      if (dtype == DType::f32) {
        store(i, x);
      } else if (dtype == DType::bf16) {
        store(i, to_bf16(x));
        x = to_f32(to_bf16(x));
      } else {
        store(i, to_f16(x));
        x = to_f32(to_f16(x));
      }
    }
  }
  template <class T>
  void store(std::size_t i, T value) {
    std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  }

  Floats values;
  std::vector<unsigned char> bytes;
};

class OnGpu {
 public:
  explicit OnGpu(const ProductShape& shape)
      : shape_(shape),
        a_(shape.m * shape.k, shape.a, random_),
        b_(shape.n * shape.k, shape.b, random_),
        a_at_(a_.bytes.size()),
        b_at_(b_.bytes.size()) {
    check(cudaMemcpy(a_at_.data(), a_.bytes.data(), a_.bytes.size(), cudaMemcpyHostToDevice), "a");
    check(cudaMemcpy(b_at_.data(), b_.bytes.data(), b_.bytes.size(), cudaMemcpyHostToDevice), "b");
  }

  // Once, or once and then the same added `added` times.
  Floats by(const ProductPlan& plan, const Machine& machine, int added = 0, bool capture = false) {
    const auto count = static_cast<std::size_t>(plan.splits() * shape_.m * shape_.n);
    const GpuBuffer c(count * sizeof(float)), scratch(plan.scratch_bytes());
    const cudaStream_t stream = machine.training.stream;
    const auto run = [&] {
      for (int i = 0; i <= added; ++i) {
        plan.run(a_at_.data(), b_at_.data(), reinterpret_cast<float*>(c.data()), i > 0,
                 scratch.data(), stream);
      }
    };
    if (capture) {
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t ready = nullptr;
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
      run();
      check(cudaStreamEndCapture(stream, &graph), "capturing");
      check(cudaGraphInstantiate(&ready, graph, 0), "capturing");
      check(cudaGraphLaunch(ready, stream), "replaying");
      finish(stream, "replaying");
      check(cudaGraphExecDestroy(ready), "capturing");
      check(cudaGraphDestroy(graph), "capturing");
    } else {
      run();
      finish(stream, "multiplying");
    }
    EXPECT_TRUE(a_at_.intact() && b_at_.intact() && c.intact() && scratch.intact())
        << shape_.text();
    Floats results(count);
    check(cudaMemcpy(results.data(), c.data(), count * sizeof(float), cudaMemcpyDeviceToHost),
          "downloading");
    return results;
  }

  double plain(std::int64_t i, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t l = 0; l < shape_.k; ++l) {
      sum += double{a_.values[static_cast<std::size_t>(shape_.a_transposed ? l * shape_.m + i
                                                                           : i * shape_.k + l)]} *
             b_.values[static_cast<std::size_t>(shape_.b_transposed ? j * shape_.k + l
                                                                    : l * shape_.n + j)];
    }
    return sum;
  }

 private:
  std::mt19937 random_{7};
  ProductShape shape_;
  Operand a_, b_;
  GpuBuffer a_at_, b_at_;
};

void expect_close(const Floats& got, const Floats& expected, double closeness) {
  ASSERT_EQ(got.size(), expected.size());
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i])) << i;
    largest = std::max(largest, std::abs(double{expected[i]}));
    worst = std::max(worst, std::abs(double{got[i]} - expected[i]));
  }
  EXPECT_LE(worst, closeness * largest);
}

// f(shape) for sizes on both sides of tiles' ends, and tiles of class centers.
template <class F>
void each_shape(const F& f) {
  constexpr std::int64_t sizes[][3] = {{1, 1, 1},      {65, 63, 17},     {130, 129, 33},
                                       {7, 200, 1500}, {128, 512, 4736}, {1000, 64, 512}};
  for (const auto& [m, n, k] : sizes) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        f(ProductShape{a_transposed, b_transposed, m, n, k});
      }
    }
  }
}

class GpuProducts : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !gpu_machine(false).cublas) GTEST_SKIP() << "built without cuBLASLt";
  }
};

TEST_F(GpuProducts, OfTheOwnKernelAreThePlainSum) {
  const Machine& machine = gpu_machine(false);
  each_shape([&](const ProductShape& shape) {
    SCOPED_TRACE(shape.text());
    OnGpu product(shape);
    const Floats results = product.by(*plan_own_product(shape, machine.training), machine);
    Floats expected;
    for (std::int64_t i = 0; i < shape.m; ++i) {
      for (std::int64_t j = 0; j < shape.n; ++j) {
        expected.push_back(static_cast<float>(product.plain(i, j)));
      }
    }
    expect_close(results, expected, 1e-5);
  });
}

TEST_F(GpuProducts, OfTheLibraryAgreeWithTheOwnKernel) {
  each_shape([&](ProductShape shape) {
    for (const DType a : {DType::f32, DType::bf16, DType::f16}) {
      for (const bool mixed : {false, true}) {
        if (mixed && a == DType::f32) continue;
        for (const bool tf32 : {false, true}) {
          shape.a = a;
          shape.b = mixed ? DType::f32 : a;
          shape.tf32 = tf32;
          SCOPED_TRACE(shape.text() + (tf32 ? " in tf32" : ""));
          const Machine& machine = gpu_machine(tf32);
          OnGpu product(shape);
          const auto plan = plan_product(shape, machine.training);
          const Floats own = product.by(*plan_own_product(shape, machine.training), machine);
          const Floats first = product.by(*plan, machine);
          const bool exact = !tf32 || (a != DType::f32 && !mixed);
          expect_close(first, own, exact ? 1e-5 : 2e-3);
          EXPECT_EQ(product.by(*plan, machine), first) << "a second run has other bits";
          EXPECT_EQ(product.by(*plan, machine, 0, true), first) << "captured";
          Floats three = own;
          for (float& x : three) x *= 3;
          expect_close(product.by(*plan, machine, 2), three, exact ? 1e-5 : 2e-3);
        }
      }
    }
  });
}

TEST_F(GpuProducts, AreMeasuredOnceAndRepeated) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "cublaslt_gpu_test";
  std::filesystem::remove_all(folder);
  const Gpu& gpu = gpu_machine(false).gpu;
  const CublasOptions options{
      .gpu = gpu.name, .driver = gpu.driver, .autotune = true, .file = folder / "cublaslt.json"};
  const auto measuring = open_cublas(options), reading = open_cublas(options),
             repeating = open_cublas(
                 {.gpu = gpu.name, .driver = gpu.driver, .autotune = false, .file = {}});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const ProductShape shape{
        .a_transposed = true, .m = 128, .n = 512, .k = 8192, .a = dtype, .b = dtype};
    OnGpu product(shape);
    std::vector<Floats> results;
    for (const auto* library : {&measuring, &reading, &repeating}) {
      if (library == &repeating) repeating->repeat(measuring->choices());
      Machine machine(find_gpu(-1, 0, 1), {});
      results.push_back(product.by(*(*library)->plan(shape), machine));
    }
    EXPECT_EQ(results[1], results[0]);
    EXPECT_EQ(results[2], results[0]);
  }
  EXPECT_TRUE(std::filesystem::exists(options.file));
  EXPECT_EQ(reading->choices(), measuring->choices());
  EXPECT_EQ(repeating->choices(), measuring->choices());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ftrain::cuda
