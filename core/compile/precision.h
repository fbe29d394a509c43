// The precision pass: a graph written in f32, with its activations in 16 bits, bf16 or f16.
//
// Works on the plain graph, before layouts. Images' activations (4-D) and their gradients become
// that, from image_normalize's output or the first convolution on, through every op whose
// definition says so (OpDef::narrowing); all other ops compute in f32, with casts around them. f32
// stay parameters, their gradients and updates, batch norm's statistics, sums and coefficients, the
// slopes, the embedding, the class-center step and every scalar. A convolution reads the f32 weight
// itself: the CPU's kernel rounds a copy on the way, the CUDA device's last pass puts in copies
// that are kept.
//
// A graph that writes no state stays in f32: it is an evaluation, and accuracy is what it is for.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

FTRAIN_API std::unique_ptr<Graph> lower_precision(const Graph& graph, DType to);

}  // namespace ftrain
