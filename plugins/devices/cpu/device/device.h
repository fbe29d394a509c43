// The CPU device: oneDNN and Highway on all cores of a rank's share of the machine.
//
// `isa` limits oneDNN and Highway for the whole process, so all CPU devices of a process must agree
// on it. Threads: each rank's thread has OpenMP threads of its own.
#pragma once

#include <memory>
#include <string>

#include "ftrain/device/device.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/device/processor.h"
#include "plugins/devices/cpu/tune/answers.h"

namespace ftrain::cpu {

class CpuDevice final : public Device {
 public:
  void configure(Keys& keys) override;
  void open(int local_rank, int local_ranks) override;
  std::string summary() const override;
  const KernelList& kernels() const override { return kernels_; }
  void add_kernel(const KernelDef& def) override;
  std::string choices() const override;
  void repeat(std::string_view choices) override;
  std::unique_ptr<StateStore> make_store() override;
  std::unique_ptr<CompileTarget> target(const Graph& program, Communicator* communicator) override;
  std::size_t overhead_bytes(const Program& program) override;
  std::unique_ptr<Executable> compile(Program program, StateStore& store,
                                      Communicator* communicator) override;

  // What kernels are told of this device.
  KernelEnvironment environment(Communicator* communicator) const;

  std::int64_t threads = 0;
  std::string isa = "auto";
  std::string precision = "fp32";
  std::string kernel_choice = "auto";
  std::string winograd = "auto";
  bool autotune = true;
  std::string recompute = "cheap";
  std::string pin = "auto";
  bool overlap = true;

 private:
  bool overlaps(Communicator* communicator) const;

  KernelList kernels_;
  KernelOptions options_;
  Answers repeated_, used_;  // measured before, and what programs took
  int threads_ = 1, local_rank_ = 0, local_ranks_ = 1;
  std::string isa_;
};

}  // namespace ftrain::cpu
