// One op for a batch norm with what stands around it, and one for its gradient: what the fuse pass
// puts in place of runs of plain ops, so that a device passes over memory once for all of it.
//
// A chain is a list of stages. A kernel refuses chains that it lacks, and the decomposition, made
// of the stages, is documentation, oracle and fallback at once. The backward ones compute the
// norm's output z again from x, so that z is never stored. No chain has a gradient: fusing comes
// after gradients(). Formulas: ftrain/ops/normalization.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops/normalization.h"

namespace ftrain {

// Forward: [statistics] norm [prelu | add] [statistics norm].
struct NormChain {
  enum class Statistics : std::uint8_t {
    given,     // operands [groups, C]
    constant,  // operands [C]
    own        // of x, made in the chain and handed out
  };
  enum class Tail : std::uint8_t { nothing, prelu, add };

  Statistics statistics = Statistics::given;
  Tail tail = Tail::nothing;
  bool norm_follows = false;  // of y, with statistics of its own; behind own statistics alone

  bool operator==(const NormChain&) const = default;
  // Of a node of norm_chain; a plain batch norm is a chain of one stage.
  FTRAIN_API static NormChain of(const Node& node);
  // "statistics norm prelu statistics norm"
  FTRAIN_API std::string text() const;

  // Operands: x, [mean, variance,] gamma, beta, [slope or other,] [gamma, beta of the second norm].
  // Results: y [, mean, variance] [, z, mean, variance].
  std::size_t mean() const { return 1; }
  std::size_t gamma() const { return statistics == Statistics::own ? 1 : 3; }
  std::size_t beta() const { return gamma() + 1; }
  std::size_t tail_operand() const { return gamma() + 2; }
  std::size_t second_gamma() const { return tail_operand() + (tail == Tail::nothing ? 0 : 1); }
};

// Backward: [add | norm add] [prelu] [sums] [input] [add].
struct NormChainGrad {
  enum class Before : std::uint8_t {
    nothing,  // dy is operand 0
    sum,      // dy is the sum of operands 0 and 1
    norm      // dy is the gradient through the norm that followed, plus another operand
  };

  Before before = Before::nothing;
  bool prelu = false;                // a PReLU stood behind the norm
  bool sums = false, input = false;  // dgamma and dbeta (and dslope) are made; dx is
  bool add = false;                  // another gradient is added to dx

  bool operator==(const NormChainGrad&) const = default;
  FTRAIN_API static NormChainGrad of(const Node& node);
  FTRAIN_API std::string text() const;

  // Operands: dy, x, mean, variance, gamma [, beta, slope] [, dgamma, dbeta] [, other]; of a sum a,
  // b in the place of dy; of a norm dz, the outer norm's x, mean, variance, gamma, then other, then
  // the inner norm's from x on. Results: [the sum, or the outer norm's dx, dgamma, dbeta,] [dx,]
  // [dgamma, dbeta] [, dslope].
  std::size_t x() const { return before == Before::nothing ? 1 : before == Before::sum ? 2 : 6; }
  std::size_t gamma() const { return x() + 3; }
  std::size_t given_sums() const { return x() + (prelu ? 6 : 4); }  // without the stage `sums`
  std::size_t other() const { return sums ? x() + (prelu ? 6 : 4) : given_sums() + 2; }
  std::size_t dx() const { return before == Before::nothing ? 0 : before == Before::sum ? 1 : 3; }
};

// Those that kernels have.
namespace chains {
using S = NormChain::Statistics;
using T = NormChain::Tail;
using B = NormChainGrad::Before;
inline constexpr NormChain prelu{S::given, T::prelu}, add{S::given, T::add},
    constant_prelu{S::constant, T::prelu}, constant_add{S::constant, T::add}, whole{S::own},
    whole_prelu{S::own, T::prelu}, whole_add{S::own, T::add},
    whole_prelu_norm{S::own, T::prelu, true}, whole_add_norm{S::own, T::add, true};
inline constexpr NormChainGrad prelu_sums{B::nothing, true, true, false},
    prelu_input{B::nothing, true, false, true}, input_add{B::nothing, false, false, true, true},
    grad{B::nothing, false, true, true}, prelu_grad{B::nothing, true, true, true},
    grad_add{B::nothing, false, true, true, true}, sum_grad{B::sum, false, true, true},
    sum_prelu_grad{B::sum, true, true, true}, norm_grad{B::norm, false, true, true},
    norm_prelu_grad{B::norm, true, true, true};
}  // namespace chains

// "norm_chain statistics norm prelu"; of other ops their name.
FTRAIN_API std::string chain_title(const Node& node);

namespace ops {

// A batch norm's coefficients.
struct Affine {
  Value gamma, beta;
};

// prelu(batch_norm(x)) and batch_norm(x) + other.
FTRAIN_API Value batch_norm_prelu(Value x, Moments moments, Affine affine, Value slope,
                                  const BatchNorm& options);
FTRAIN_API Value batch_norm_add(Value x, Moments moments, Affine affine, Value other,
                                const BatchNorm& options);
// The same with constant statistics.
FTRAIN_API Value batch_norm_fixed_prelu(Value x, Moments fixed, Affine affine, Value slope,
                                        double eps);
FTRAIN_API Value batch_norm_fixed_add(Value x, Moments fixed, Affine affine, Value other,
                                      double eps);

// With dz = prelu_grad(dy, z, slope): batch_norm_sums(dz, x) and the gradient of slope [C].
struct BatchNormPReluSums {
  BatchNormSums norm;
  Value slope;
};
FTRAIN_API BatchNormPReluSums batch_norm_prelu_sums(Value dy, Value x, Moments moments,
                                                    Affine affine, Value slope, double eps);
// batch_norm_input_grad(dz, x, ...).
FTRAIN_API Value batch_norm_prelu_input_grad(Value dy, Value x, Moments moments, Affine affine,
                                             Value slope, BatchNormSums sums,
                                             const BatchNorm& options);
// batch_norm_input_grad(dy, x, ...) + other.
FTRAIN_API Value batch_norm_input_grad_add(Value dy, Value x, Moments moments, Value gamma,
                                           BatchNormSums sums, Value other,
                                           const BatchNorm& options);

// ---- statistics of this rank alone: made in the chain

struct WholeOptions {
  double eps = 1e-5;
  std::int64_t groups = 1;
};
struct WholeNorm {
  Value y;
  Moments moments;  // of x
};
// batch_norm(x, batch_moments(x)), then the PReLU or the addition.
FTRAIN_API WholeNorm batch_norm_whole(Value x, Affine affine, const WholeOptions& options);
FTRAIN_API WholeNorm batch_norm_whole_prelu(Value x, Affine affine, Value slope,
                                            const WholeOptions& options);
FTRAIN_API WholeNorm batch_norm_whole_add(Value x, Affine affine, Value other,
                                          const WholeOptions& options);

// y as by the last two, and the batch norm of y.
struct NormPair {
  WholeNorm first, second;
};
FTRAIN_API NormPair batch_norm_prelu_norm(Value x, Affine first, Value slope, Affine second,
                                          const WholeOptions& options, double second_eps);
FTRAIN_API NormPair batch_norm_add_norm(Value x, Affine first, Value other, Affine second,
                                        const WholeOptions& options, double second_eps);

// What the gradient through a batch norm (and the PReLU behind it) needs beside dy.
struct NormOperands {
  Value x;
  Moments moments;  // of x
  Value gamma;
  Value beta, slope;  // with a PReLU only
  double eps = 1e-5;
};
struct NormGrad {
  Value x;
  BatchNormSums sums;
  Value slope;  // with a PReLU only
};
// batch_norm_sums and batch_norm_input_grad, or batch_norm_prelu_sums and
// batch_norm_prelu_input_grad when the operands have a slope.
FTRAIN_API NormGrad batch_norm_grad(Value dy, const NormOperands& norm);
// batch_norm_grad without a PReLU, + other.
FTRAIN_API NormGrad batch_norm_grad_add(Value dy, const NormOperands& norm, Value other);

// d = a + b, and batch_norm_grad(d).
struct SumThenGrad {
  Value d;
  NormGrad grad;
};
FTRAIN_API SumThenGrad add_batch_norm_grad(Value a, Value b, const NormOperands& norm);
// d = batch_norm_grad_add(dz, outer, other), and batch_norm_grad(d, inner).
struct GradThenGrad {
  NormGrad outer, inner;  // d is outer.x
};
FTRAIN_API GradThenGrad batch_norm_grad_pair(Value dz, const NormOperands& outer, Value other,
                                             const NormOperands& inner);

namespace def {
FTRAIN_API extern const OpDef norm_chain, norm_chain_grad;
}  // namespace def

}  // namespace ops
}  // namespace ftrain
