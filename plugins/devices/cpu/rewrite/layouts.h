// The layouts pass: activations in channel blocks, convolution weights as oneDNN wants them.
//
// Convolutions ask for blocked activations. Every other node keeps the blocks of its operands where
// one of its kernels takes them, and gets row-major operands where none does; `reorder` nodes stand
// between. A parameter that is a convolution's weight is kept in the convolution's own order, and
// its optimizer's slots with it, so that a step moves no weight that it need not move. States that
// `store` (may be null) holds keep the layout that they have there.
#pragma once

#include <memory>

#include "core/graph/graph.h"
#include "core/runtime/device.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store);

}  // namespace ftrain::cpu
