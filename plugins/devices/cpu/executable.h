// A program at fixed addresses: a row of kernels, run in order on the caller's thread (each kernel
// is parallel inside).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/runtime/device.h"
#include "plugins/devices/cpu/store.h"

namespace ftrain::cpu {

// The program's kernels as an executable has them, but for collectives, at addresses that are not
// to be used.
std::vector<std::unique_ptr<Kernel>> bound_nowhere(const Program& program,
                                                   const KernelEnvironment& environment);

class CpuExecutable final : public Executable {
 public:
  // `environment` lives on in the kernels that keep its communicator.
  CpuExecutable(Program program, Store& store, const KernelEnvironment& environment);

  const Program& program() const override { return program_; }
  void write(std::string_view input, const void* data) override;
  void run() override;
  void refresh() override { stale_ = true; }
  void read(std::string_view fetch, void* data) override;

 private:
  char* address(Value value) const;

  Program program_;
  Store& store_;
  int threads_;
  char *inputs_ = nullptr, *arena_ = nullptr;  // in the store
  std::vector<std::size_t> input_offsets_;     // by node; inputs alone
  // In order; `kept`: done only when stale.
  struct Launch {
    std::unique_ptr<Kernel> kernel;
    bool kept = false;
  };
  std::vector<Launch> launches_;
  bool stale_ = true;
};

}  // namespace ftrain::cpu
