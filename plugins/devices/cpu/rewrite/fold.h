// The fold pass: a network that is only evaluated, with its batch norms inside its convolutions.
//
// Works on the plain graph, before layouts. In a program that writes no state, a batch norm of
// fixed statistics behind (or before) a convolution becomes part of its weight and bias, and a
// PReLU and an addition behind it become the convolution's own last steps. A batch norm before a
// convolution with padding leaves a bias that depends on the position: the padding is of zeros, not
// of shifts. What is computed from states alone is done once and kept (Program::kept). Results are
// those of the unfolded program to rounding.
//
// Linear layers stay: folding would keep a copy of the network's largest weight to save passes over
// its smallest activations.
#pragma once

#include <memory>
#include <vector>

#include "ftrain/device/kernel.h"
#include "ftrain/graph/graph.h"

namespace ftrain::cpu {

// The graph as it is where nothing can be folded.
std::unique_ptr<Graph> fold(const Graph& graph, const KernelEnvironment& environment);

}  // namespace ftrain::cpu
