// Batch norms with their own statistics, alone and in pairs, forward and backward: what
// core/ops/norm_chain.h describes. Where one norm follows another, the pass that writes the
// activation between them sums what the second one needs.
#include "plugins/devices/cuda/ops/norm_pass.h"

namespace ftrain::cuda::norms {
namespace {

// ---- forward. Inputs: x, gamma, beta, then slope or other, then gamma and beta of the second.

// The first norm of a recipe: its moments are outputs 1 and 2.
PerChannel first_norm(const Bound& b, After after) {
  return {.mean = b.made(1),
          .variance = b.made(2),
          .gamma = b.floats(1),
          .beta = b.floats(2),
          .slope = after == After::prelu ? b.floats(3) : nullptr,
          .eps = b.eps};
}

// Writes output 0 in the second of two passes, which goes in order `last`; Term sums over it.
template <After after, class Term>
void normalize_first(const Bound& b, Sweep last) {
  const Sweep first = last == Sweep::up ? Sweep::down : Sweep::up;
  b.passes.run<Keep, MomentSums>(b.arguments({}, {}), {b.in(0)}, nullptr, first);
  b.finish_moments(1);
  const PassArguments arguments = b.arguments(first_norm(b, after), {});
  if constexpr (after == After::add) {
    b.passes.run<Normalize<after>, Term>(arguments, {b.in(0), b.in(3)}, b.out(0), last);
  } else {
    b.passes.run<Normalize<after>, Term>(arguments, {b.in(0)}, b.out(0), last);
  }
}

template <After after>
struct Whole {
  static constexpr std::string_view stages = after == After::prelu ? "statistics norm prelu"
                                             : after == After::add ? "statistics norm add"
                                                                   : "statistics norm";
  static constexpr int moments = -1, sums = 2;
  static constexpr auto activations = [] {
    if constexpr (after == After::add)
      return at<0, 3>;
    else
      return at<0>;
  }();
  static constexpr auto made = at<0>;
  static void run(const Bound& b) { normalize_first<after, NoSums>(b, Sweep::down); }
};

// Outputs: y and its statistics' first, then the same of the second norm.
template <After after>
struct Pair : Whole<after> {
  static constexpr std::string_view stages = after == After::prelu
                                                 ? "statistics norm prelu statistics norm"
                                                 : "statistics norm add statistics norm";
  static constexpr auto made = at<0, 3>;
  static void run(const Bound& b) {
    normalize_first<after, MomentSums>(b, Sweep::up);
    b.finish_moments(4);
    const PerChannel second{.mean = b.made(4),
                            .variance = b.made(5),
                            .gamma = b.floats(4),
                            .beta = b.floats(5),
                            .eps = b.second_eps};
    b.passes.run<Normalize<After::nothing>, NoSums>(b.arguments(second, {}), {b.out(0)}, b.out(3),
                                                    Sweep::down);
  }
};

// ---- backward

// The operands of a norm whose x is input `x`: x, mean, variance, gamma (, beta, slope).
PerChannel operands_of(const Bound& b, std::size_t x, float eps, bool prelu) {
  return {.mean = b.floats(x + 1),
          .variance = b.floats(x + 2),
          .gamma = b.floats(x + 3),
          .beta = prelu ? b.floats(x + 4) : nullptr,
          .slope = prelu ? b.floats(x + 5) : nullptr,
          .eps = eps};
}

// The same, with the sums that outputs `gamma` and the next hold.
PerChannel with_sums(const Bound& b, PerChannel of, std::size_t gamma) {
  of.gamma_gradient = b.made(gamma);
  of.beta_gradient = b.made(gamma + 1);
  of.share = b.share();
  return of;
}

// Inputs: dy, operands (, other). Outputs: dx, dgamma, dbeta (, dslope).
template <bool prelu, bool add>
struct Grad {
  static constexpr std::string_view stages = add     ? "sums input add"
                                             : prelu ? "prelu sums input"
                                                     : "sums input";
  static constexpr int moments = 2, sums = prelu ? 3 : 2;
  static constexpr auto activations = [] {
    if constexpr (add)
      return at<0, 1, 5>;
    else
      return at<0, 1>;
  }();
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    const PerChannel of = operands_of(b, 1, b.eps, prelu);
    b.passes.run<Keep, GradSums<prelu>>(b.arguments({}, of), {b.in(0), b.in(1)}, nullptr);
    b.finish_grad<prelu>(of, 1);
    const PassArguments arguments = b.arguments(with_sums(b, of, 1), {});
    if constexpr (add) {
      b.passes.run<InputGrad<prelu, add>, NoSums>(arguments, {b.in(0), b.in(1), b.in(5)}, b.out(0),
                                                  Sweep::down);
    } else {
      b.passes.run<InputGrad<prelu, add>, NoSums>(arguments, {b.in(0), b.in(1)}, b.out(0),
                                                  Sweep::down);
    }
  }
};

// The last pass: the gradient through the norm `of` of what output 0 holds, summed up already. x:
// input `x`; dx and the sums: from output `dx` on.
template <bool prelu>
void finish_second(const Bound& b, const PerChannel& of, std::size_t x, std::size_t dx) {
  b.finish_grad<prelu>(of, dx + 1);
  b.passes.run<InputGrad<prelu, false>, NoSums>(b.arguments(with_sums(b, of, dx + 1), {}),
                                                {b.out(0), b.in(x)}, b.out(dx), Sweep::down);
}

// Inputs: a, b, operands. Outputs: a + b, dx, dgamma, dbeta (, dslope).
template <bool prelu>
struct SumGrad {
  static constexpr std::string_view stages = prelu ? "add prelu sums input" : "add sums input";
  static constexpr int moments = 3, sums = prelu ? 3 : 2;
  static constexpr auto activations = at<0, 1, 2>;
  static constexpr auto made = at<0, 1>;
  static void run(const Bound& b) {
    const PerChannel of = operands_of(b, 2, b.eps, prelu);
    b.passes.run<AddTwo, GradSums<prelu>>(b.arguments({}, of), {b.in(0), b.in(1), b.in(2)},
                                          b.out(0));
    finish_second<prelu>(b, of, 2, 1);
  }
};

// Inputs: dz, operands of the outer norm, other, operands of the inner one. Outputs: d, dgamma,
// dbeta of the outer, dx, dgamma, dbeta (, dslope) of the inner.
template <bool prelu>
struct PairGrad {
  static constexpr std::string_view stages =
      prelu ? "norm add prelu sums input" : "norm add sums input";
  static constexpr int moments = 2, sums = prelu ? 3 : 2;
  static constexpr auto activations = at<0, 1, 5, 6>;
  static constexpr auto made = at<0, 3>;
  static void run(const Bound& b) {
    const PerChannel outer = operands_of(b, 1, b.eps, false);
    const PerChannel inner = operands_of(b, 6, b.second_eps, prelu);
    b.passes.run<Keep, GradSums<false>>(b.arguments({}, outer), {b.in(0), b.in(1)}, nullptr,
                                        Sweep::down);
    b.finish_grad<false>(outer, 1);
    b.passes.run<InputGrad<false, true>, GradSums<prelu>>(
        b.arguments(with_sums(b, outer, 1), inner), {b.in(0), b.in(1), b.in(5), b.in(6)}, b.out(0));
    finish_second<prelu>(b, inner, 6, 3);
  }
};

using Recipes =
    ChainRecipes<Whole<After::nothing>, Whole<After::prelu>, Whole<After::add>, Pair<After::prelu>,
                 Pair<After::add>, Grad<false, false>, Grad<true, false>, Grad<false, true>,
                 SumGrad<false>, SumGrad<true>, PairGrad<false>, PairGrad<true>>;

}  // namespace

bool has_whole_chain(const Node& node) {
  return Recipes::with(node, [](auto) {});
}
std::string refuse_whole_chain(const Node& node, const KernelEnvironment& environment) {
  return Recipes::refuse(node, environment);
}
std::unique_ptr<Kernel> make_whole_chain(const Node& node, const KernelEnvironment& environment) {
  return Recipes::make(node, environment);
}

}  // namespace ftrain::cuda::norms
