// cuBLASLt itself behind the interface of cublas.h.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/cublaslt/cublas.h"
#include "plugins/devices/cuda/cublaslt/measure.h"
#include "plugins/devices/cuda/cublaslt/problem.h"
#include "plugins/devices/cuda/device/plan_cache.h"

namespace ftrain::cuda {
namespace {

// Of what the heuristics name so many are measured.
constexpr int most_candidates = 12;

using Handle = Described<cublasLtContext, cublasLtDestroy>;

Handle open_handle() {
  cublasLtHandle_t made = nullptr;
  check_cublas(cublasLtCreate(&made), "be opened");
  return Handle(made);
}

int property(libraryPropertyType which) {
  int value = 0;
  check_cublas(cublasLtGetProperty(which, &value), "say its version");
  return value;
}

std::string library_version() {
  return std::to_string(property(MAJOR_VERSION)) + "." + std::to_string(property(MINOR_VERSION)) +
         "." + std::to_string(property(PATCH_LEVEL));
}

// What distinguishes a product from others in the file.
std::string problem_text(const ProductShape& shape) {
  return shape.text() + (shape.tf32 && shape.a == DType::f32 ? " in tf32" : "");
}

class LibraryPlan final : public ProductPlan {
 public:
  LibraryPlan(cublasLtHandle_t handle, const ProductShape& shape, const Candidate& chosen)
      : handle_(handle), shape_(shape), problem_(shape), chosen_(chosen) {}

  std::size_t scratch_bytes() const override {
    return chosen_.workspace == 0 ? 0 : chosen_.workspace + workspace_alignment;
  }

  void run(const void* a, const void* b, float* c, bool add, void* scratch,
           cudaStream_t stream) const override {
    const auto misplaced = [](const void* at) {
      return reinterpret_cast<std::uintptr_t>(at) % 16 != 0;
    };
    if (misplaced(a) || misplaced(b) || misplaced(c)) {
      throw DeviceError("operands of the product " + shape_.text() +
                        " must lie at multiples of 16 bytes");
    }
    check_cublas(multiply(handle_, problem_, chosen_, a, b, c, add, scratch, stream),
                 "multiply " + problem_text(shape_));
  }

 private:
  cublasLtHandle_t handle_;
  ProductShape shape_;
  Problem problem_;
  Candidate chosen_;
};

class Library final : public Cublas {
 public:
  explicit Library(const CublasOptions& options)
      : options_(options),
        version_(library_version()),
        handle_(open_handle()),
        // What is only guessed is not worth keeping.
        cache_(options.autotune ? options.file : std::filesystem::path{},
               {options.gpu, "cuBLASLt " + version_ + ", driver " + std::to_string(options.driver) +
                                 ", workspace " + std::to_string(options.workspace_limit)},
               "algorithms of cuBLASLt") {}

  std::string version() const override { return version_; }
  std::string choices() const override { return cache_.used(); }
  void repeat(std::string_view choices) override { cache_.repeat(choices); }

  std::string refuse(const ProductShape& shape) const override {
    if (std::string reason = refuse_shape(shape); !reason.empty()) return reason;
    return candidates(shape).empty() ? "has no algorithm for " + problem_text(shape)
                                     : std::string();
  }

  std::shared_ptr<const ProductPlan> plan(const ProductShape& shape) override {
    if (const std::string reason = refuse(shape); !reason.empty()) {
      throw DeviceError("cuBLASLt " + reason);
    }
    const std::string name = problem_text(shape);
    auto& plan = plans_[name];
    if (plan != nullptr) return plan;
    const Problem problem(shape);
    // One that was kept need not be among the candidates, but the library must still take it.
    const auto known = [&](const Answer& answer) { return check(problem, answer.kernel); };
    const Answer& answer = cache_.answer(
        name, [&] { return choose(shape, problem); },
        [&](const Answer& kept) { return known(kept).has_value(); });
    const auto chosen = known(answer);
    if (!chosen) throw DeviceError("cuBLASLt does not take its own algorithm for " + name);
    return plan = std::make_shared<LibraryPlan>(handle_.get(), shape, *chosen);
  }

 private:
  const std::vector<Candidate>& candidates(const ProductShape& shape) const {
    const auto [at, is_new] = candidates_.try_emplace(problem_text(shape));
    if (!is_new) return at->second;
    const Problem problem(shape);
    std::vector<cublasLtMatmulHeuristicResult_t> found(most_candidates);
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_.get(), problem.operation.get(), problem.first.get(), problem.second.get(),
        problem.result.get(), problem.result.get(), preference(options_.workspace_limit).get(),
        most_candidates, found.data(), &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return at->second;
    check_cublas(status, "choose an algorithm for " + problem_text(shape));
    for (int i = 0; i < count; ++i) {
      const auto& result = found[static_cast<std::size_t>(i)];
      if (result.state != CUBLAS_STATUS_SUCCESS || !sums_in_order(result.algo)) continue;
      at->second.push_back({result.algo, result.workspaceSize});
    }
    return at->second;
  }

  std::optional<Candidate> check(const Problem& problem, const std::string& text) const {
    const auto algorithm = algorithm_in(text);
    if (!algorithm || !sums_in_order(*algorithm)) return {};
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(
        handle_.get(), problem.operation.get(), problem.first.get(), problem.second.get(),
        problem.result.get(), problem.result.get(), &*algorithm, &result);
    if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > options_.workspace_limit) {
      return {};
    }
    return Candidate{*algorithm, result.workspaceSize};
  }

  PlanCache::Measured choose(const ProductShape& shape, const Problem& problem) const {
    const std::vector<Candidate>& all = candidates(shape);
    if (options_.autotune) {
      if (auto answer = fastest(handle_.get(), shape, problem, all)) return {std::move(*answer)};
    }
    return {{text_of(all.front().algorithm), {}}, false};
  }

  CublasOptions options_;
  std::string version_;
  Handle handle_;
  PlanCache cache_;
  std::map<std::string, std::shared_ptr<const ProductPlan>> plans_;
  mutable std::map<std::string, std::vector<Candidate>> candidates_;
};

}  // namespace

std::unique_ptr<Cublas> open_cublas(const CublasOptions& options) {
  return std::make_unique<Library>(options);
}

}  // namespace ftrain::cuda
