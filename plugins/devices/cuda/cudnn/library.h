// cuDNN on one device: its handle, and the plan of each convolution that was asked for.
//
// Ownership: plans are shared with the kernels made of them. Threads: one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "plugins/devices/cuda/cudnn/cudnn.h"
#include "plugins/devices/cuda/cudnn/plan.h"
#include "plugins/devices/cuda/device/plan_cache.h"

namespace ftrain::cuda {

class CudnnLibrary final : public Cudnn {
 public:
  // On the current device.
  explicit CudnnLibrary(const CudnnOptions& options);
  // For a device that is only described (see Target): plans are made, not run or measured.
  CudnnLibrary(const CudnnOptions& options, const std::string& description);
  ~CudnnLibrary() override;
  CudnnLibrary(const CudnnLibrary&) = delete;
  CudnnLibrary& operator=(const CudnnLibrary&) = delete;

  std::string version() const override { return cudnn_version(); }
  std::string choices() const override { return cache_.used(); }
  void repeat(std::string_view choices) override { cache_.repeat(choices); }

  // DeviceError naming the convolution when cuDNN has no plan that may be used.
  std::shared_ptr<const Plan> plan_for(const ConvolutionProblem& problem);
  // Enqueues it. `pack`: see variant_pack().
  void execute(const Plan& plan, const Descriptor& pack, cudaStream_t stream,
               const std::string& name);

 private:
  std::shared_ptr<const Plan> choose(const ConvolutionProblem& problem);
  // By measuring or, where that is not to be or cannot be done, by what heuristics name first.
  std::shared_ptr<const Plan> find(const ConvolutionProblem& problem, const ConvolutionGraph& graph,
                                   PlanCache::Measured& found);
  // Of what heuristics name the first `most` that can be made and may be used.
  std::vector<std::shared_ptr<const Plan>> makeable(const ConvolutionGraph& graph,
                                                    std::size_t most) const;

  CudnnOptions options_;
  cudnnHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;  // the handle's
  Target target_;
  PlanCache cache_;
  std::map<std::string, std::shared_ptr<const Plan>> plans_;  // by problem
  std::map<std::string, std::string> failed_;                 // problem, why
};

}  // namespace ftrain::cuda
