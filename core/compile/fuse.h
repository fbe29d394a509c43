// Puts fused ops (core/ops/fused.h) in the place of runs of plain ones.
//
//   prelu(batch_norm(x))                      -> batch_norm_prelu
//     and its backward, which then recomputes the batch norm's output instead of storing it:
//     prelu_grad, batch_norm_sums             -> batch_norm_prelu_sums
//     prelu_grad, batch_norm_input_grad       -> batch_norm_prelu_input_grad
//   batch_norm(x) + other                     -> batch_norm_add
//   batch_norm_input_grad(dy, x, ...) + other -> batch_norm_input_grad_add
//   the first and third with batch_norm_fixed -> batch_norm_fixed_prelu, batch_norm_fixed_add
//
// Then, where the statistics are of this rank alone (core/ops/whole_norm.h):
//   batch_moments and the norm of its x     -> batch_norm_whole (_prelu, _add)
//   a norm's sums and its input gradient    -> batch_norm_grad, batch_norm_prelu_grad,
//                                              batch_norm_grad_add
// and what follows at once on the same activation:
//   batch_norm_whole of the y of another    -> batch_norm_prelu_norm, batch_norm_add_norm
//   batch_norm_grad of a + b                -> add_batch_norm_grad, add_batch_norm_prelu_grad
//   batch_norm_grad of batch_norm_grad_add  -> batch_norm_grad_pair, batch_norm_prelu_grad_pair
//
// A run is fused when nothing else uses what lies inside it, no state that it reads is written
// between its nodes, and its tensors are what the fused kernels take. That depends on layouts, so
// this comes after they were chosen.
#pragma once

#include <functional>
#include <memory>

#include "ftrain/graph/graph.h"

namespace ftrain {

// Whether a device's kernels of fused norms take this activation.
using TakenByKernels = std::function<bool(const TensorType& activation)>;

FTRAIN_API std::unique_ptr<Graph> fuse(const Graph& graph, const TakenByKernels& taken);

}  // namespace ftrain
