// The CUDA device: one NVIDIA GPU a rank.
//
// A step is a row of kernels on streams, recorded after two runs and replayed from then on
// (executable.h). Threads: one rank, one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ftrain/device/device.h"
#include "plugins/devices/cuda/runtime/machine.h"

namespace ftrain::cuda {

class CudaDevice final : public Device {
 public:
  void configure(Keys& keys) override;
  void open(int local_rank, int local_ranks) override;
  std::string summary() const override;
  const KernelList& kernels() const override { return kernels_; }
  void add_kernel(const KernelDef& def) override { kernels_.add(def); }
  std::optional<LossScaling> loss_scaling() const override;
  std::string choices() const override;
  void repeat(std::string_view choices) override;
  std::unique_ptr<StateStore> make_store() override;
  std::unique_ptr<CompileTarget> target(const Graph& program, Communicator* communicator) override;
  std::size_t overhead_bytes(const Program& program) override;
  std::unique_ptr<Executable> compile(Program program, StateStore& store,
                                      Communicator* communicator) override;

  std::int64_t gpu = -1;
  std::string assume = "none";
  std::string precision = "fp32";
  LossScaling scaling;
  std::string kernel_choice = "auto";
  bool autotune = true;
  std::string recompute = "none";
  bool overlap = true;
  bool capture = true;
  bool check = false;

 private:
  bool overlaps(Communicator* communicator) const;
  Machine& machine();

  KernelList kernels_;
  std::unique_ptr<Machine> machine_;
};

}  // namespace ftrain::cuda
