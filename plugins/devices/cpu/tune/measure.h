// Times kernels of one node against each other, on memory of its own.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "ftrain/device/kernel.h"
#include "plugins/devices/cpu/device/memory.h"

namespace ftrain::cpu {

// Memory that is touched, and kept from problem to problem: operands of random numbers near one,
// whose bytes are such as bf16, f32 and f64.
class Workbench {
 public:
  char* operands(std::size_t bytes);  // never written by a kernel
  char* results(std::size_t bytes);
  char* scratch(std::size_t bytes);

 private:
  struct Run {
    Memory memory;
    std::size_t bytes = 0;
  };
  static bool grow(Run& run, std::size_t bytes);
  Run operands_, results_, scratch_;
};

struct Timing {
  const KernelDef* def = nullptr;
  double seconds = 0;  // the best of its launches
};

// The bytes of a node's operands and results.
std::size_t operand_bytes(const Node& node);

// The candidates' times, in their order. Who is clearly behind after a launch or two is not
// launched again. A candidate that throws is left out, with the reason in `failed`.
std::vector<Timing> measure(const Node& node, const std::vector<const KernelDef*>& candidates,
                            const KernelEnvironment& environment, Workbench& bench,
                            std::vector<std::pair<std::string, std::string>>& failed);

// Whom to take: of those within 3 % of the fastest one that is not coarse, and then the one of
// highest priority. A coarse one must be 5 % faster. `timings` stand by priority and are not empty.
const KernelDef* winner(const std::vector<Timing>& timings);

}  // namespace ftrain::cpu
