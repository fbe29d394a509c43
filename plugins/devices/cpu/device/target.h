// What the CPU device tells core's compiler: its passes, its layouts, and kernels that are measured
// where it tunes.
#pragma once

#include <memory>

#include "ftrain/device/target.h"
#include "plugins/devices/cpu/tune/answers.h"
#include "plugins/devices/cpu/tune/tuner.h"

namespace ftrain::cpu {

class CpuTarget final : public CompileTarget {
 public:
  // `repeated`: see Tuner. What the choices rest on is in `used` when the target goes.
  CpuTarget(const KernelList& kernels, KernelEnvironment environment, CompileOptions options,
            bool tunes, const Answers& repeated, Answers& used);
  ~CpuTarget() override;

  const CompileOptions& options() const override { return options_; }
  const KernelList& kernels() const override { return kernels_; }
  KernelEnvironment environment(const Node&, bool) const override { return environment_; }
  KernelChoice choose(const Node& node) override;
  std::unique_ptr<Graph> rewrite(Place place, std::unique_ptr<Graph> graph) override;
  std::unique_ptr<Graph> arrange(std::unique_ptr<Graph> graph, const StateStore* store) override;
  bool takes_fused_norm(const TensorType& activation) const override;

 private:
  const KernelList& kernels_;
  const KernelEnvironment environment_;
  const CompileOptions options_;
  const bool tunes_;
  Tuner tuner_;
  Answers& used_;
};

}  // namespace ftrain::cpu
