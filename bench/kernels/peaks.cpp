#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/kernels/peaks.cpp"
#include "bench/kernels/peaks.h"

#include "plugins/devices/cpu/simd/dispatch.h"
// Highway's order: after dispatch.h.
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace ftrain::bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Multiply-adds in 12 independent chains: more than latency times ports. Returns their number.
double multiply_add(std::int64_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.999f), term = hn::Set(d, 0.001f);
  // Chains that differ, or the compiler makes them one.
  const auto start = [&](float x) { return hn::Set(d, x); };
  auto a0 = start(0), a1 = start(1), a2 = start(2), a3 = start(3), a4 = start(4), a5 = start(5);
  auto a6 = start(6), a7 = start(7), a8 = start(8), a9 = start(9), a10 = start(10), a11 = start(11);
  for (std::int64_t i = 0; i < rounds; ++i) {
    a0 = hn::MulAdd(a0, factor, term), a1 = hn::MulAdd(a1, factor, term);
    a2 = hn::MulAdd(a2, factor, term), a3 = hn::MulAdd(a3, factor, term);
    a4 = hn::MulAdd(a4, factor, term), a5 = hn::MulAdd(a5, factor, term);
    a6 = hn::MulAdd(a6, factor, term), a7 = hn::MulAdd(a7, factor, term);
    a8 = hn::MulAdd(a8, factor, term), a9 = hn::MulAdd(a9, factor, term);
    a10 = hn::MulAdd(a10, factor, term), a11 = hn::MulAdd(a11, factor, term);
  }
  const auto all = hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)),
                           hn::Add(hn::Add(hn::Add(a4, a5), hn::Add(a6, a7)),
                                   hn::Add(hn::Add(a8, a9), hn::Add(a10, a11))));
  *sink = hn::GetLane(hn::SumOfLanes(d, all));
  return 12.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

void read_all(const float* x, std::int64_t count, float* sink) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (std::int64_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Add(a, hn::Load(d, x + i)), b = hn::Add(b, hn::Load(d, x + i + lanes));
    c = hn::Add(c, hn::Load(d, x + i + 2 * lanes)), e = hn::Add(e, hn::Load(d, x + i + 3 * lanes));
  }
  *sink = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

void copy_all(const float* x, float* y, std::int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i + lanes <= count; i += lanes) {
    hn::Stream(hn::Load(d, x + i), d, y + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "plugins/devices/cpu/device/memory.h"

namespace ftrain::bench {
namespace {

HWY_EXPORT(multiply_add);
HWY_EXPORT(read_all);
HWY_EXPORT(copy_all);

// The least seconds of a few calls.
template <class F>
double best_seconds(int calls, const F& f) {
  double best = 1e9;
  for (int i = 0; i < calls; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

double bf16_products() {
  constexpr std::int64_t n = 2048;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::memory::desc plain({n, n}, dnnl::memory::data_type::bf16,
                                 dnnl::memory::format_tag::ab);
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(plain, plain, plain), engine);
  const dnnl::matmul product(desc);
  dnnl::memory a(plain, engine), b(plain, engine), c(plain, engine);
  const double seconds = best_seconds(4, [&] {
    product.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
    stream.wait();
  });
  return 2.0 * n * n * n / seconds;
}

}  // namespace

Peaks measure_peaks(int threads, const std::string& isa, bool bf16) {
  Peaks peaks;
  const auto fma = FTRAIN_SIMD(multiply_add, isa);
  const auto read = FTRAIN_SIMD(read_all, isa);
  const auto copy = FTRAIN_SIMD(copy_all, isa);
  constexpr std::int64_t rounds = 20'000'000;
  double done = 0;
  const double fma_seconds = best_seconds(3, [&] {
    done = 0;
#pragma omp parallel num_threads(threads) reduction(+ : done)
    {
      float sink = 0;
      done += fma(rounds, &sink);
      if (sink == 42.0f) std::puts("");  // the result must be wanted
    }
  });
  peaks.f32_flops = 2 * done / fma_seconds;

  constexpr std::size_t bytes = std::size_t{512} << 20;
  cpu::Memory memory(bytes, "measuring the memory's speed");
  auto* const data = reinterpret_cast<float*>(memory.data());
  const auto count = static_cast<std::int64_t>(bytes / sizeof(float));
  const auto share = [&](std::int64_t all) { return all / threads / 64 * 64; };
#pragma omp parallel num_threads(threads)
  std::fill_n(data + omp_get_thread_num() * share(count), share(count), 1.0f);
  const double read_seconds = best_seconds(4, [&] {
#pragma omp parallel num_threads(threads)
    {
      float sink = 0;
      read(data + omp_get_thread_num() * share(count), share(count), &sink);
      if (sink == 42.0f) std::puts("");
    }
  });
  peaks.read_bytes = static_cast<double>(bytes) / read_seconds;
  const double copy_seconds = best_seconds(4, [&] {
#pragma omp parallel num_threads(threads)
    {
      const std::int64_t at = omp_get_thread_num() * share(count / 2);
      copy(data + at, data + count / 2 + at, share(count / 2));
    }
  });
  peaks.copy_bytes = static_cast<double>(bytes) / copy_seconds;
  if (bf16) peaks.bf16_flops = bf16_products();
  return peaks;
}

std::string Peaks::text() const {
  char line[160];
  std::snprintf(line, sizeof line,
                "f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, read %.1f GB/s, copy %.1f GB/s",
                f32_flops / 1e9, bf16_flops / 1e9, read_bytes / 1e9, copy_bytes / 1e9);
  return line;
}

}  // namespace ftrain::bench
#endif
