#include "plugins/devices/cuda/cudnn/library.h"

#include <algorithm>
#include <utility>

#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "plugins/devices/cuda/cudnn/measure.h"
#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {
namespace {

constexpr std::size_t most_measured = 12;  // plans a problem: heuristics name the good ones first

Circumstances circumstances_of(const CudnnOptions& options) {
  return {options.gpu, "cuDNN " + cudnn_version() + ", driver " + version_text(options.driver)};
}

cudnnHandle_t made_handle() {
  cudnnHandle_t handle = nullptr;
  check_cudnn(cudnnCreate(&handle), "begin on this GPU");
  return handle;
}

}  // namespace

std::unique_ptr<Cudnn> open_cudnn(const CudnnOptions& options) {
  return std::make_unique<CudnnLibrary>(options);
}

CudnnLibrary::CudnnLibrary(const CudnnOptions& options)
    : options_(options),
      handle_(made_handle()),
      target_(handle_),
      // What was not measured is not worth a file.
      cache_(options.autotune ? options.file : "", circumstances_of(options), "plans of cuDNN") {}

CudnnLibrary::CudnnLibrary(const CudnnOptions& options, const std::string& description)
    : options_(options),
      target_(description),
      cache_("", circumstances_of(options), "plans of cuDNN") {}

CudnnLibrary::~CudnnLibrary() {
  plans_.clear();
  if (handle_ != nullptr) cudnnDestroy(handle_);
}

std::vector<std::shared_ptr<const Plan>> CudnnLibrary::makeable(const ConvolutionGraph& graph,
                                                                std::size_t most) const {
  std::vector<std::shared_ptr<const Plan>> plans;
  for (const PlanChoice& choice : graph.candidates()) {
    if (plans.size() == most) break;
    std::shared_ptr<const Plan> plan = graph.make(choice);
    if (plan && plan->workspace() <= options_.workspace_limit) plans.push_back(std::move(plan));
  }
  return plans;
}

std::shared_ptr<const Plan> CudnnLibrary::plan_for(const ConvolutionProblem& problem) {
  if (const auto at = plans_.find(problem.name); at != plans_.end()) return at->second;
  if (const auto at = failed_.find(problem.name); at != failed_.end()) {
    throw DeviceError(at->second);
  }
  try {
    auto plan = choose(problem);
    plans_[problem.name] = plan;
    return plan;
  } catch (const DeviceError& error) {
    failed_[problem.name] = error.what();
    throw;
  }
}

std::shared_ptr<const Plan> CudnnLibrary::choose(const ConvolutionProblem& problem) {
  const ConvolutionGraph graph(problem, target_);
  std::shared_ptr<const Plan> plan;
  const auto find_one = [&] {
    PlanCache::Measured found;
    plan = find(problem, graph, found);
    return found;
  };
  const auto suits = [&](const Answer& answer) {
    const std::optional<PlanChoice> choice = PlanChoice::from(answer.kernel);
    if (choice) plan = graph.make(*choice);
    if (plan && plan->workspace() <= options_.workspace_limit) return true;
    plan = nullptr;
    log::warning("\"" + answer.kernel + "\", chosen before for " + problem.name +
                 ", is no plan that cuDNN " + version() + " has here; another one is chosen");
    return false;
  };
  cache_.answer(problem.name, find_one, suits);
  return plan;
}

std::shared_ptr<const Plan> CudnnLibrary::find(const ConvolutionProblem& problem,
                                               const ConvolutionGraph& graph,
                                               PlanCache::Measured& found) {
  const bool measuring = options_.autotune && handle_ != nullptr;
  const auto plans = makeable(graph, measuring ? most_measured : 1);
  if (plans.empty()) {
    std::string reason = "cuDNN " + version() + " has no plan for " + problem.name +
                         " that gives the same bits every time, rounds as asked and works in " +
                         std::to_string(options_.workspace_limit >> 20) + " MiB";
    for (const std::string& why : graph.refused()) reason += "; one " + why;
    throw DeviceError(reason);
  }
  std::vector<double> seconds;
  if (measuring) {
    seconds = measure_plans(problem, plans, handle_);
    check_cudnn(cudnnSetStream(handle_, stream_), "take a stream");
  }
  std::size_t best = fastest(plans, seconds);
  if (best == plans.size()) {
    best = 0;
    found.lasting = false;
  }
  found.answer.kernel = plans[best]->choice().text();
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    if (seconds[i] > 0) found.answer.seconds.emplace_back(plans[i]->choice().text(), seconds[i]);
  }
  return plans[best];
}

void CudnnLibrary::execute(const Plan& plan, const Descriptor& pack, cudaStream_t stream,
                           const std::string& name) {
  if (stream != stream_) {
    check_cudnn(cudnnSetStream(handle_, stream), "take a stream");
    stream_ = stream;
  }
  const cudnnStatus_t status = cudnnBackendExecute(handle_, plan.get(), pack.get());
  if (status != CUDNN_STATUS_SUCCESS) {
    check_cudnn(status, "do " + name + " by " + plan.choice().text());
  }
}

}  // namespace ftrain::cuda
