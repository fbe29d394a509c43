#include "plugins/devices/cuda/rewrite/rewrite.h"

#include "core/compile/cached.h"
#include "core/compile/fuse.h"
#include "core/compile/merge_updates.h"
#include "core/compile/passes.h"
#include "core/compile/precision.h"
#include "core/compile/recompute.h"
#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/rewrite/layouts.h"
#include "plugins/devices/cuda/rewrite/merge_running.h"
#include "plugins/devices/cuda/rewrite/working_copies.h"

namespace ftrain::cuda {
namespace {

// Norms of images in either order, and of matrices [N, C].
bool takes_fused_norms(const TensorType& x) {
  if (x.dtype != DType::f32 && x.dtype != DType::bf16 && x.dtype != DType::f16) return false;
  return x.layout == row_major || x.layout == channels_last;
}

}  // namespace

Rewritten rewrite(const Graph& graph, const KernelList& kernels,
                  const KernelEnvironment& environment, const StateStore* store,
                  const RewriteOptions& options) {
  std::unique_ptr<Graph> now = remove_dead(*merge_common(graph));
  now = recompute(*now, options.recompute);
  if (options.precision == "bf16") now = lower_precision(*now, DType::bf16);
  if (options.precision == "fp16") now = lower_precision(*now, DType::f16);
  now = remove_dead(*assign_layouts(*now, kernels, environment, store));
  now = remove_dead(*fuse(*now, takes_fused_norms));
  now = merge_running(*merge_updates(*now));
  if (options.advance) now = advance_collectives(*now);
  WorkingCopies copies = add_working_copies(*now);
  return {std::move(copies.graph), std::move(copies.kept)};
}

}  // namespace ftrain::cuda
