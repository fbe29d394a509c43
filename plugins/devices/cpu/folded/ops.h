// The ops of a folded network: a convolution with its last steps, and what makes its operands of
// the states.
//
// Emitted by the fold pass alone; none has a gradient. What depends on states alone is computed in
// double and rounded once.
#pragma once

#include "ftrain/ops.h"

namespace ftrain::cpu {

extern const OpDef conv2d_folded_op;

// A batch norm of fixed statistics as factor x + shift, each [C]: factor = gamma / sqrt(variance +
// eps), shift = beta - mean factor.
struct FoldedNorm {
  Value factor, shift;
};
FoldedNorm fold_norm(Value mean, Value variance, Value gamma, Value beta, double eps);

// weight [K, C/groups, R, S] times before.factor of its input channel and behind.factor of its
// output channel. Either may be invalid.
Value fold_weight(Value weight, FoldedNorm before, FoldedNorm behind, std::int64_t groups);

// What a convolution of x [N, C, H, W] = `shape` adds to each of its results when norms stand
// before and behind it: [K], or where a shift before it meets its padding, by position: [1, K, H',
// W'].
Value fold_bias(Value weight, FoldedNorm before, FoldedNorm behind, const Shape& shape,
                const ops::Conv2d& options);

// prelu(conv2d(x, weight) + bias, slope) + other. bias is [K] or [1, K, H', W'], slope [K]; slope
// and other may be invalid.
Value conv2d_folded(Value x, Value weight, Value bias, Value slope, Value other,
                    const ops::Conv2d& options);

}  // namespace ftrain::cpu
