// Kernels: how a device does one node.
//
// A KernelDef says "can I, and why not" apart from "do it": the highest priority that does not
// refuse wins, and the reasons of the others are kept for `ftrain plan --kernels`. Every op has a
// plain kernel of priority 0 on the CPU, the oracle of all others.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class Communicator;

// A node made ready to run. Built once; launch() only does the work: no allocation, no decision.
class FTRAIN_API Kernel {
 public:
  virtual ~Kernel();
  // Bytes of scratch that launch() wants, 64-byte aligned, not kept between launches.
  virtual std::size_t scratch_bytes() const { return 0; }
  // See PlanRequest::overwrites.
  virtual int overwrites() const { return -1; }
  // The fixed addresses of inputs, outputs and scratch: called once, before the first launch.
  virtual void bind(std::span<void* const> inputs, std::span<void* const> outputs,
                    void* scratch) = 0;
  virtual void launch() = 0;
};

// What a kernel may know of its device beside the node.
struct KernelEnvironment {
  int threads = 1;
  std::string isa;                       // "plain", "avx2", "avx512": what the job allows
  Communicator* communicator = nullptr;  // nullptr: one rank
  const void* device = nullptr;          // the device's own, by kernels of that device
};

struct KernelDef {
  std::string_view op, name;
  int priority = 0;
  // Empty: can do it. Otherwise the reason, as a person reads it. nullptr: never refuses.
  std::string (*refuse)(const Node& node, const KernelEnvironment& environment) = nullptr;
  std::unique_ptr<Kernel> (*make)(const Node& node, const KernelEnvironment& environment) = nullptr;
  // Rounds noticeably more than the plain sum: measured, it must win clearly.
  bool coarse = false;
};

// What was chosen for a node, and why not the better ones.
struct KernelChoice {
  const KernelDef* def = nullptr;
  std::vector<std::pair<std::string, std::string>> refused;  // kernel name, reason
  // Where a measurement decided: every candidate and its seconds, the fastest (= def) first.
  std::vector<std::pair<std::string, double>> measured;
};

class FTRAIN_API KernelList {
 public:
  void add(const KernelDef& def);
  // DeviceError naming the op when every kernel refuses. `only` (a kernel's name) restricts.
  KernelChoice choose(const Node& node, const KernelEnvironment& environment,
                      std::string_view only = {}) const;
  // Those that do not refuse, highest priority first.
  std::vector<const KernelDef*> candidates(const Node& node,
                                           const KernelEnvironment& environment) const;
  // All kernels of an op, highest priority first.
  std::vector<const KernelDef*> of(std::string_view op) const;
  const std::vector<KernelDef>& all() const { return defs_; }

 private:
  std::vector<KernelDef> defs_;
};

}  // namespace ftrain
