// The recompute pass: activations that the backward walk makes again instead of keeping.
//
// Works on the plain graph, before precision and layouts; later passes must not merge the copies
// that it makes with their originals. Values are the same to the bit, so a job's curve does not
// depend on it.
#pragma once

#include <memory>
#include <string>

#include "core/graph/graph.h"

namespace ftrain::cpu {

// policy: "none" keeps everything; "cheap" makes batch norms and PReLUs again where a convolution's
// weight gradient wants them; "block" keeps only what crosses from block to block of the network
// and makes all else again, convolutions included.
std::unique_ptr<Graph> recompute(const Graph& graph, const std::string& policy);

}  // namespace ftrain::cpu
