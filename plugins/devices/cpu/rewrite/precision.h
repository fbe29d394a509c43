// The precision pass: a graph written in f32, with its activations in bf16.
//
// Works on the plain graph, before layouts. Images' activations (4-D) and their gradients become
// bf16, from image_normalize's output or the first convolution on, through every op of the table in
// precision.cpp; all other ops compute in f32, with casts around them. f32 stay parameters, their
// gradients and updates, batch norm's statistics, sums and coefficients, the slopes, the embedding,
// the class-center step and every scalar. A convolution reads the f32 weight itself: its kernel
// rounds a copy on the way (see conv2d in onednn/).
//
// A graph that writes no state stays in f32: it is an evaluation, folded (rewrite/fold.h) into
// convolutions for which f32 has Winograd's method, and accuracy is what it is for.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "core/graph/graph.h"

namespace ftrain::cpu {

std::unique_ptr<Graph> lower_precision(const Graph& graph);

// The operands that an op takes in bf16, images all of them; none: it computes in f32 alone.
std::vector<std::size_t> bf16_operands(std::string_view op);

}  // namespace ftrain::cpu
