// The distinct kernels of a program: each with how often it stands there, its work and its traffic.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ftrain/device/device.h"
#include "plugins/devices/cpu/device/memory.h"

namespace ftrain::bench {

struct Problem {
  const Node* node = nullptr;
  const KernelDef* def = nullptr;
  std::string title;       // "conv2d layer1.0.conv1 bf16[16,64,112,112]"
  std::int64_t count = 1;  // nodes of the step with the same kernel, types and attributes
  double flops = 0;        // of the plain method: Winograd's may come out above the peak
  double bytes = 0;        // operands and results, once each
  bool bf16 = false;       // operands are bf16
};

// `every`: not only the chosen kernel of a node, but all that would take it (plain loops left out).
std::vector<Problem> problems_of(const Program& program, const KernelList& kernels,
                                 const KernelEnvironment& environment, bool every);

// A problem's kernel, bound to buffers of its own that hold harmless numbers.
class Instance {
 public:
  Instance(const Problem& problem, const KernelEnvironment& environment);
  void launch() { kernel_->launch(); }

 private:
  std::unique_ptr<Kernel> kernel_;
  std::vector<cpu::Memory> memory_;
};

}  // namespace ftrain::bench
