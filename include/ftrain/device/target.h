// What a device tells the compiler of one program: the compiler itself is core's, one for all
// devices (core/compile/compiler.h).
//
// The pipeline, and where the device has its say:
//
//   ops that no kernel of the device does    -> their decompositions
//   what is the same is made once, what nobody reads not at all
//   rewrite(Place::plain)                    the graph as it was written, row-major, f32
//   recompute, lower_precision               as CompileOptions says
//   arrange()                                layouts, with `reorder` between them
//   rewrite(Place::arranged)
//   fuse                                     norms that takes_fused_norm() takes
//   merge_updates
//   rewrite(Place::fused)
//   nodes that every kernel refuses          -> their decompositions
//   collectives ahead                        where they run beside the kernels
//   finish()                                 and what is kept from run to run
//   choose() and environment()               a kernel for each node, made once
//   the plan of memory
//
// Ownership: a target lives as long as one program is compiled, and its device outlives it.
// Threads: one. Failure: DeviceError.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/device/kernel.h"
#include "ftrain/graph/graph.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class StateStore;

struct CompileOptions {
  // false: the graph as it was written, for an oracle. Nothing is arranged, fused or kept.
  bool rewrite = true;
  std::string recompute = "none";    // none, cheap, block: see core/compile/recompute.h
  std::optional<DType> narrow = {};  // what activations are lowered to: bf16 or f16
  bool overlap = false;              // collectives run beside the kernels
  std::size_t alignment = 64;        // of every value's address
  bool host_apart = false;           // see PlanRequest::host_apart
};

// A graph as a device will run it.
struct Rewritten {
  std::unique_ptr<Graph> graph;
  std::vector<bool> kept;  // see Program::kept
};

class FTRAIN_API CompileTarget {
 public:
  // Where passes of the device's own stand.
  enum class Place { plain, arranged, fused };

  virtual ~CompileTarget();

  virtual const CompileOptions& options() const = 0;
  virtual const KernelList& kernels() const = 0;
  // What a kernel of that node is told. `beside`: a collective that runs beside the kernels.
  virtual KernelEnvironment environment(const Node& node, bool beside) const = 0;
  // As the device's kernels say, unless it measures.
  virtual KernelChoice choose(const Node& node);

  // Each is given the whole graph and returns what becomes of it; left out, it stays as it is.
  virtual std::unique_ptr<Graph> rewrite(Place place, std::unique_ptr<Graph> graph);
  // Layouts. States that `store` (may be null) holds keep the layout that they have there.
  virtual std::unique_ptr<Graph> arrange(std::unique_ptr<Graph> graph, const StateStore* store);
  // The last pass. Left out, an evaluation keeps what depends on states alone.
  virtual Rewritten finish(std::unique_ptr<Graph> graph);
  // Whether the device's kernels of fused norms take this activation; left out: none.
  virtual bool takes_fused_norm(const TensorType& activation) const;
};

}  // namespace ftrain
