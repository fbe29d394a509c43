// Puts norm chains (core/ops/norm_chain.h) in the place of runs of plain ones.
//
// Their stages (norm_chain, norm_chain_grad):
//   prelu(batch_norm(x))                      -> norm prelu
//     and its backward, which then recomputes the batch norm's output instead of storing it:
//     prelu_grad, batch_norm_sums             -> prelu sums
//     prelu_grad, batch_norm_input_grad       -> prelu input
//   batch_norm(x) + other                     -> norm add
//   batch_norm_input_grad(dy, x, ...) + other -> input add
//   the first and third with batch_norm_fixed -> constant norm prelu, constant norm add
//
// Then, where the statistics are of this rank alone:
//   batch_moments and the norm of its x       -> statistics norm (prelu, add)
//   a norm's sums and its input gradient      -> (prelu) sums input (add)
// and what follows at once on the same activation:
//   such a norm of the y of another           -> statistics norm prelu|add statistics norm
//   such a gradient of a + b                  -> add (prelu) sums input
//   such a gradient of another one + other    -> norm add (prelu) sums input
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
