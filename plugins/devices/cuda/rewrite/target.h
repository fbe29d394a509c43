// What the CUDA device tells core's compiler: channels-last layouts, running statistics in one op,
// weights in 16 bits that the update writes, and the stream that each kernel works on.
#pragma once

#include <memory>
#include <string>

#include "ftrain/device/target.h"
#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {

struct TargetOptions {
  std::string precision = "fp32";  // fp32, tf32, bf16, fp16; tf32 is a matter of kernels alone
  std::string recompute = "none";  // see core/compile/recompute.h
  bool advance = false;            // collectives run beside the kernels
};

class CudaTarget final : public CompileTarget {
 public:
  // `context` is the program's kernels', `beside` that of collectives beside them; both outlive the
  // kernels.
  CudaTarget(const KernelList& kernels, const Context& context, const Context& beside,
             Communicator* communicator, const TargetOptions& options);

  const CompileOptions& options() const override { return options_; }
  const KernelList& kernels() const override { return kernels_; }
  KernelEnvironment environment(const Node& node, bool beside) const override;
  std::unique_ptr<Graph> rewrite(Place place, std::unique_ptr<Graph> graph) override;
  std::unique_ptr<Graph> arrange(std::unique_ptr<Graph> graph, const StateStore* store) override;
  Rewritten finish(std::unique_ptr<Graph> graph) override;
  bool takes_fused_norm(const TensorType& activation) const override;

 private:
  const KernelList& kernels_;
  const KernelEnvironment environment_, beside_;
  CompileOptions options_;
};

}  // namespace ftrain::cuda
