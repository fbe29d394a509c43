// A program at fixed addresses: a row of kernels, run in order on the caller's thread (each kernel
// is parallel inside).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/runtime/device.h"
#include "plugins/devices/cpu/memory.h"
#include "plugins/devices/cpu/store.h"

namespace ftrain::cpu {

class CpuExecutable final : public Executable {
 public:
  // `environment` lives on in the kernels that keep its communicator.
  CpuExecutable(Program program, Store& store, const KernelEnvironment& environment);

  const Program& program() const override { return program_; }
  void write(std::string_view input, const void* data) override;
  void run() override;
  void read(std::string_view fetch, void* data) override;

 private:
  char* address(Value value) const;

  Program program_;
  Store& store_;
  int threads_;
  Memory inputs_, arena_;
  std::vector<std::size_t> input_offsets_;  // by node; inputs alone
  std::vector<std::unique_ptr<Kernel>> kernels_;
};

}  // namespace ftrain::cpu
