#include "plugins/devices/cuda/cublaslt/measure.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace ftrain::cuda {
namespace {

struct FreeMemory {
  void operator()(void* at) const { cudaFree(at); }
};
using Memory = std::unique_ptr<void, FreeMemory>;

// nullptr where there is not so much. The content is small numbers, none of them 0: multipliers
// that find zeros draw less power and run faster.
Memory small_numbers(std::size_t bytes, cudaStream_t stream) {
  void* at = nullptr;
  if (cudaMalloc(&at, std::max<std::size_t>(bytes, 256)) != cudaSuccess) {
    cudaGetLastError();  // so that later calls do not find it again
    return nullptr;
  }
  Memory memory(at);
  return cudaMemsetAsync(at, 0x3c, bytes, stream) == cudaSuccess ? std::move(memory) : nullptr;
}

struct DestroyStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

Stream make_stream() {
  cudaStream_t made = nullptr;
  return Stream(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking) == cudaSuccess ? made
                                                                                       : nullptr);
}
Event make_event() {
  cudaEvent_t made = nullptr;
  return Event(cudaEventCreateWithFlags(&made, cudaEventDefault) == cudaSuccess ? made : nullptr);
}

std::size_t matrix_bytes(DType dtype, std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * size_of(dtype);
}

class Bench {
 public:
  Bench(const ProductShape& shape, std::size_t workspace)
      : a_(small_numbers(matrix_bytes(shape.a, shape.m, shape.k), stream_.get())),
        b_(small_numbers(matrix_bytes(shape.b, shape.n, shape.k), stream_.get())),
        c_(small_numbers(matrix_bytes(DType::f32, shape.m, shape.n), stream_.get())),
        scratch_(small_numbers(workspace + workspace_alignment, stream_.get())) {}

  bool ready() const { return stream_ && begin_ && end_ && a_ && b_ && c_ && scratch_; }

  // Seconds of one product; nothing when the candidate does not run.
  std::optional<double> time(cublasLtHandle_t handle, const Problem& problem,
                             const Candidate& candidate) const {
    const auto run = [&](int times) -> std::optional<double> {
      bool good = cudaEventRecord(begin_.get(), stream_.get()) == cudaSuccess;
      for (int i = 0; i < times && good; ++i) {
        good =
            multiply(handle, problem, candidate, a_.get(), b_.get(), static_cast<float*>(c_.get()),
                     false, scratch_.get(), stream_.get()) == CUBLAS_STATUS_SUCCESS;
      }
      good = good && cudaEventRecord(end_.get(), stream_.get()) == cudaSuccess &&
             cudaEventSynchronize(end_.get()) == cudaSuccess;
      float milliseconds = 0;
      if (!good || cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()) != cudaSuccess) {
        cudaGetLastError();  // so that later calls do not find it again
        return {};
      }
      return milliseconds * 1e-3 / times;
    };
    if (!run(1)) return {};  // loads the kernel's code
    const auto first = run(1);
    if (!first) return {};
    // Half a millisecond a round, of which the best counts: what disturbs only slows.
    const int times = static_cast<int>(std::clamp(0.5e-3 / std::max(*first, 1e-7), 1.0, 50.0));
    double best = *first;
    for (int round = 0; round < 3; ++round) {
      const auto seconds = run(times);
      if (!seconds) return {};
      best = round == 0 ? *seconds : std::min(best, *seconds);
    }
    return best;
  }

 private:
  Stream stream_ = make_stream();
  Event begin_ = make_event(), end_ = make_event();
  Memory a_, b_, c_, scratch_;
};

}  // namespace

cublasStatus_t multiply(cublasLtHandle_t handle, const Problem& problem, const Candidate& candidate,
                        const void* a, const void* b, float* c, bool add, void* scratch,
                        cudaStream_t stream) {
  const float alpha = 1, beta = add ? 1 : 0;
  void* workspace = nullptr;
  if (candidate.workspace > 0) {
    const auto at = reinterpret_cast<std::uintptr_t>(scratch);
    workspace = static_cast<char*>(scratch) +
                (workspace_alignment - at % workspace_alignment) % workspace_alignment;
  }
  return cublasLtMatmul(handle, problem.operation.get(), &alpha, b, problem.first.get(), a,
                        problem.second.get(), &beta, c, problem.result.get(), c,
                        problem.result.get(), &candidate.algorithm, workspace, candidate.workspace,
                        stream);
}

std::optional<Answer> fastest(cublasLtHandle_t handle, const ProductShape& shape,
                              const Problem& problem, const std::vector<Candidate>& candidates) {
  std::size_t workspace = 0;
  for (const Candidate& candidate : candidates) {
    workspace = std::max(workspace, candidate.workspace);
  }
  const Bench bench(shape, workspace);
  if (!bench.ready()) return {};
  Answer answer;
  for (const Candidate& candidate : candidates) {
    if (const auto seconds = bench.time(handle, problem, candidate)) {
      answer.seconds.emplace_back(text_of(candidate.algorithm), *seconds);
    }
  }
  if (answer.seconds.empty()) return {};
  std::stable_sort(answer.seconds.begin(), answer.seconds.end(),
                   [](const auto& x, const auto& y) { return x.second < y.second; });
  answer.kernel = answer.seconds.front().first;
  return answer;
}

}  // namespace ftrain::cuda
