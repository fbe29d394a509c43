// The recompute pass: activations that the backward walk makes again instead of keeping.
//
// Works on the plain graph, before precision and layouts; later passes must not merge the copies
// that it makes with their originals. Values are the same to the bit, so a job's curve does not
// depend on it. A step in parts (gradient accumulation) is taken part by part: each begins with a
// slice_rows of the step's samples.
#pragma once

#include <memory>
#include <string>

#include "ftrain/graph/graph.h"

namespace ftrain {

// policy:
//  "none"   keeps everything.
//  "cheap"  keeps what convolutions make; the batch norms, PReLUs and additions behind them are
//           made again where a dense convolution's weight gradient or a batch norm's gradient wants
//           them. Before 1x1 and depthwise convolutions they are kept: there the passes over memory
//           are most of the time already.
//  "block"  keeps one value at the border of each segment of the network, and batch moments;
//           everything between is made again, convolutions included. The segments are those for
//           which least is alive at once.
// Nodes that write a state, ranks' meetings and batch moments are never repeated; random numbers
// are functions of the step, so theirs may be.
FTRAIN_API std::unique_ptr<Graph> recompute(const Graph& graph, const std::string& policy);

}  // namespace ftrain
