// Batch norms whose moments are of this rank alone: statistics and norm, sums and gradient, in one.
#include "core/compile/fusion.h"
#include "core/ops/norm_chain.h"

namespace ftrain {
namespace {

class WholeNorms : Fusion {
 public:
  explicit WholeNorms(const Graph& old, const TakenByKernels& taken) : Fusion(old, taken) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (is(node, ops::def::batch_norm) || is(node, chains::prelu) || is(node, chains::add)) {
        match_norm(node);
      }
      if (is(node, ops::def::batch_norm_input_grad) || is(node, chains::prelu_input) ||
          is(node, chains::input_add)) {
        match_gradient(node);
      }
    }
    return rebuilt();
  }

 private:
  void match_norm(const Node& norm) {
    const Node& moments = norm.inputs[1].node();
    if (!is(moments, ops::def::batch_moments) || norm.attributes.integer("ranks") != 1) return;
    if (norm.inputs[1] != first(moments) || norm.inputs[2] != first(moments).sibling(1)) return;
    if (moments.inputs[0] != norm.inputs[0] || !taken_by_kernels(norm.input(0))) return;
    std::vector<const Node*> moved;
    if (!free(moments) || !can_wait(moments, norm, moved)) return;
    take(moments);
    emit_at(
        norm,
        [this, &norm, &moments] {
          const Value x = now(norm.inputs[0]);
          const ops::Affine affine{now(norm.inputs[3]), now(norm.inputs[4])};
          const ops::WholeOptions options{norm.attributes.number("eps"),
                                          moments.attributes.integer("groups")};
          const ops::WholeNorm whole =
              is(norm, chains::prelu)
                  ? ops::batch_norm_whole_prelu(x, affine, now(norm.inputs[5]), options)
              : is(norm, chains::add)
                  ? ops::batch_norm_whole_add(x, affine, now(norm.inputs[5]), options)
                  : ops::batch_norm_whole(x, affine, options);
          map(norm, 0, whole.y);
          map(moments, 0, whole.moments.mean);
          map(moments, 1, whole.moments.variance);
        },
        moved);
  }

  void match_gradient(const Node& gradient) {
    const bool prelu = is(gradient, chains::prelu_input);
    const std::size_t at = prelu ? 7 : 5;
    const Node& sums = gradient.inputs[at].node();
    const bool fits = prelu ? is(sums, chains::prelu_sums) : is(sums, ops::def::batch_norm_sums);
    if (!fits || !free(sums)) return;
    if (gradient.attributes.integer("ranks") != 1 || gradient.inputs[at] != first(sums) ||
        gradient.inputs[at + 1] != first(sums).sibling(1) ||
        gradient.attributes.number("eps") != sums.attributes.number("eps")) {
      return;
    }
    for (std::size_t i = 0; i < sums.inputs.size(); ++i) {
      if (sums.inputs[i] != gradient.inputs[i]) return;
    }
    std::vector<const Node*> moved;
    if (!taken_by_kernels(gradient.input(1)) || gradient.input(0) != gradient.input(1)) return;
    if (!can_wait(sums, gradient, moved)) return;
    take(sums);
    emit_at(
        gradient,
        [this, &gradient, &sums, prelu] {
          ops::NormOperands norm{.x = now(gradient.inputs[1]),
                                 .moments = moments(gradient, 2),
                                 .gamma = now(gradient.inputs[4]),
                                 .beta = {},
                                 .slope = {},
                                 .eps = gradient.attributes.number("eps")};
          if (prelu) {
            norm.beta = now(gradient.inputs[5]);
            norm.slope = now(gradient.inputs[6]);
          }
          const Value dy = now(gradient.inputs[0]);
          const ops::NormGrad whole =
              is(gradient, chains::input_add)
                  ? ops::batch_norm_grad_add(dy, norm, now(gradient.inputs[7]))
                  : ops::batch_norm_grad(dy, norm);
          map(gradient, 0, whole.x);
          map(sums, 0, whole.sums.gamma);
          map(sums, 1, whole.sums.beta);
          if (prelu) map(sums, 2, whole.slope);
        },
        moved);
  }
};

// Two of those in a row on one activation.
class NormPairs : Fusion {
 public:
  explicit NormPairs(const Graph& old, const TakenByKernels& taken) : Fusion(old, taken) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (is(node, chains::whole)) match_norms(node);
      if (is(node, chains::grad) || is(node, chains::prelu_grad)) match_gradients(node);
    }
    return rebuilt();
  }

 private:
  void match_norms(const Node& second) {
    const Node& one = second.inputs[0].node();
    const bool prelu = is(one, chains::whole_prelu);
    if ((!prelu && !is(one, chains::whole_add)) || second.inputs[0] != first(one)) return;
    const std::int64_t groups = one.attributes.integer("groups");
    std::vector<const Node*> moved;
    if (second.attributes.integer("groups") != groups || !free(one)) return;
    if (!can_wait(one, second, moved)) return;
    take(one);
    emit_at(
        second,
        [this, &second, &one, prelu, groups] {
          const ops::Affine affine{now(one.inputs[1]), now(one.inputs[2])};
          const ops::Affine next{now(second.inputs[1]), now(second.inputs[2])};
          const auto emit = prelu ? ops::batch_norm_prelu_norm : ops::batch_norm_add_norm;
          const ops::NormPair pair =
              emit(now(one.inputs[0]), affine, now(one.inputs[3]), next,
                   {one.attributes.number("eps"), groups}, second.attributes.number("eps"));
          map_norm(one, pair.first);
          map_norm(second, pair.second);
        },
        moved);
  }

  void map_norm(const Node& old, const ops::WholeNorm& norm) {
    map(old, 0, norm.y);
    map(old, 1, norm.moments.mean);
    map(old, 2, norm.moments.variance);
  }

  void match_gradients(const Node& inner) {
    const Node& before = inner.inputs[0].node();
    const bool through_norm = is(before, chains::grad_add);
    if ((!through_norm && !is(before, ops::def::add)) || inner.inputs[0] != first(before)) return;
    for (const std::size_t i : {0u, 1u}) {
      if (before.input(i) != inner.input(1)) return;
    }
    if (through_norm && before.input(2) != inner.input(2)) return;
    std::vector<const Node*> moved;
    if (!free(before) || !can_wait(before, inner, moved)) return;
    take(before);
    emit_at(
        inner,
        [this, &inner, &before, through_norm] {
          const Value a = now(before.inputs[0]);
          if (through_norm) {
            const ops::GradThenGrad pair = ops::batch_norm_grad_pair(
                a, operands(before), now(before.inputs[5]), operands(inner));
            map_gradients(before, pair.outer);
            map_gradients(inner, pair.inner);
          } else {
            const ops::SumThenGrad pair =
                ops::add_batch_norm_grad(a, now(before.inputs[1]), operands(inner));
            map(before, 0, pair.d);
            map_gradients(inner, pair.grad);
          }
        },
        moved);
  }

  ops::NormOperands operands(const Node& node) const {
    ops::NormOperands norm{.x = now(node.inputs[1]),
                           .moments = moments(node, 2),
                           .gamma = now(node.inputs[4]),
                           .beta = {},
                           .slope = {},
                           .eps = node.attributes.number("eps")};
    if (is(node, chains::prelu_grad)) {
      norm.beta = now(node.inputs[5]);
      norm.slope = now(node.inputs[6]);
    }
    return norm;
  }

  void map_gradients(const Node& old, const ops::NormGrad& grad) {
    map(old, 0, grad.x);
    map(old, 1, grad.sums.gamma);
    map(old, 2, grad.sums.beta);
    if (grad.slope) map(old, 3, grad.slope);
  }
};

}  // namespace

std::unique_ptr<Graph> fuse_whole_norms(const Graph& graph, const TakenByKernels& taken) {
  return WholeNorms(graph, taken).run();
}

std::unique_ptr<Graph> fuse_norm_pairs(const Graph& graph, const TakenByKernels& taken) {
  return NormPairs(graph, taken).run();
}

}  // namespace ftrain
