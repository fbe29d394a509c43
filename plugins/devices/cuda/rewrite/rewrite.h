// From the graph that core wrote to the graph that a GPU runs: the chain of passes.
//
//   merge_common, remove_dead     what is the same is made once, what nobody reads not at all
//   recompute                     what the backward walk makes again ([device] recompute)
//   lower_precision               activations in bf16 or fp16 ([device] precision)
//   assign_layouts                activations and dense weights channels-last, `reorder` between
//   fuse                          batch norms with what stands around them
//   merge_updates, merge_running  the optimizer's updates in one op, running statistics in another
//   advance_collectives           collectives right behind what they need, where they run beside
//   add_working_copies            weights in 16 bits that the update writes
//
// The result and what of it is kept do not depend on addresses or on what was run before, so every
// rank that is given the same graph makes the same one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ftrain/device/device.h"
#include "ftrain/graph/graph.h"

namespace ftrain::cuda {

struct RewriteOptions {
  std::string precision = "fp32";  // fp32, tf32, bf16, fp16; tf32 is a matter of kernels alone
  std::string recompute = "none";  // see core/compile/recompute.h
  bool advance = false;            // collectives run beside the kernels
};

struct Rewritten {
  std::unique_ptr<Graph> graph;
  std::vector<bool> kept;  // see Program::kept
};

// `kernels`: what layouts are asked of. States that `store` (may be null) holds keep the layout
// that they have there.
Rewritten rewrite(const Graph& graph, const KernelList& kernels,
                  const KernelEnvironment& environment, const StateStore* store,
                  const RewriteOptions& options);

}  // namespace ftrain::cuda
