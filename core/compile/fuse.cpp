#include "core/compile/fuse.h"

#include "core/compile/fusion.h"

namespace ftrain {
namespace {

ops::BatchNorm options_of(const Node& node) {
  return {node.attributes.number("eps"), node.attributes.integer("ranks")};
}

class Neighbours : Fusion {
 public:
  explicit Neighbours(const Graph& old, const TakenByKernels& taken) : Fusion(old, taken) {}

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      const Node& node = old_.node(i);
      if (is(node, ops::def::prelu)) match_prelu(node);
      if (is(node, ops::def::add)) match_add(node);
    }
    return rebuilt();
  }

 private:
  // The nodes of a batch norm with a PReLU behind it; those of the backward may be missing.
  struct Block {
    const Node *norm = nullptr, *prelu = nullptr;
    const Node *prelu_grad = nullptr, *sums = nullptr, *input_grad = nullptr;
  };

  void match_prelu(const Node& prelu) {
    Block b;
    b.prelu = &prelu;
    b.norm = &prelu.inputs[0].node();
    const bool fixed = is(*b.norm, ops::def::batch_norm_fixed);
    if (!fixed && !is(*b.norm, ops::def::batch_norm)) return;
    if (!free(*b.norm) || !taken_by_kernels(b.norm->input(0))) return;
    const Value z = prelu.inputs[0];
    std::vector<std::int32_t> uses = uses_at(z);
    if (fetched(z) || uses.empty() || uses[0] != prelu.index) return;
    if (uses.size() > 1 && (fixed || uses.size() > 2 || !match_backward(b, uses[1]))) return;

    const Node* const last = b.input_grad ? b.input_grad : b.sums ? b.sums : b.prelu;
    if (written_between(*b.norm, *last) || written_between(*b.prelu, *last)) return;
    for (const Node* node : {b.norm, b.prelu, b.prelu_grad, b.sums, b.input_grad}) {
      if (node) take(*node);
    }
    emit_at(prelu, [this, b, fixed] {
      const Node& n = *b.norm;
      const Value slope = now(b.prelu->inputs[1]);
      rebuild_.map(first(*b.prelu),
                   fixed ? ops::batch_norm_fixed_prelu(now(n.inputs[0]), moments(n, 1), affine(n),
                                                       slope, n.attributes.number("eps"))
                         : ops::batch_norm_prelu(now(n.inputs[0]), moments(n, 1), affine(n), slope,
                                                 options_of(n)));
    });
    if (b.prelu_grad) emit_backward(b);
  }

  // Whether node `user` is prelu's gradient, and what uses its dz is the batch norm's gradient.
  bool match_backward(Block& b, std::int32_t user) const {
    b.prelu_grad = &old_.node(user);
    if (!is(*b.prelu_grad, ops::def::prelu_grad) || b.prelu_grad->inputs[1] != b.prelu->inputs[0] ||
        b.prelu_grad->inputs[2] != b.prelu->inputs[1] ||
        b.prelu_grad->input(0) != b.norm->input(0)) {
      return false;
    }
    const Value dz = first(*b.prelu_grad);
    if (fetched(dz)) return false;
    for (const std::int32_t use : uses_at(dz)) {
      const Node& node = old_.node(use);
      const bool sums = is(node, ops::def::batch_norm_sums);
      if (!sums && !is(node, ops::def::batch_norm_input_grad)) return false;
      const Node*& place = sums ? b.sums : b.input_grad;
      if (place || node.inputs[0] != dz || !same_norm(node, *b.norm)) return false;
      place = &node;
    }
    return b.sums != nullptr;
  }

  bool same_norm(const Node& gradient, const Node& norm) const {
    for (std::size_t i = 0; i < 3; ++i) {
      if (gradient.inputs[i + 1] != norm.inputs[i]) return false;
    }
    if (is(gradient, ops::def::batch_norm_input_grad) && gradient.inputs[4] != norm.inputs[3])
      return false;
    return gradient.attributes.number("eps") == norm.attributes.number("eps");
  }

  void emit_backward(const Block& b) {
    // The sums take prelu_grad's place, since dslope may be wanted from there on.
    emit_at(*b.prelu_grad, [this, b] {
      const Node& n = *b.norm;
      const ops::BatchNormPReluSums sums = ops::batch_norm_prelu_sums(
          now(b.prelu_grad->inputs[0]), now(n.inputs[0]), moments(n, 1), affine(n),
          now(b.prelu->inputs[1]), n.attributes.number("eps"));
      rebuild_.map(first(*b.prelu_grad).sibling(1), sums.slope);
      rebuild_.map(first(*b.sums), sums.norm.gamma);
      rebuild_.map(first(*b.sums).sibling(1), sums.norm.beta);
    });
    if (!b.input_grad) return;
    emit_at(*b.input_grad, [this, b] {
      const Node& n = *b.norm;
      const Node& g = *b.input_grad;
      rebuild_.map(first(g), ops::batch_norm_prelu_input_grad(
                                 now(b.prelu_grad->inputs[0]), now(n.inputs[0]), moments(n, 1),
                                 affine(n), now(b.prelu->inputs[1]),
                                 {now(g.inputs[5]), now(g.inputs[6])}, options_of(g)));
    });
  }

  void match_add(const Node& add) {
    for (const std::size_t side : {0u, 1u}) {
      const Value inner = add.inputs[side], other = add.inputs[1 - side];
      const Node& norm = inner.node();
      const bool fixed = is(norm, ops::def::batch_norm_fixed);
      const bool gradient = is(norm, ops::def::batch_norm_input_grad);
      if (!fixed && !gradient && !is(norm, ops::def::batch_norm)) continue;
      const TensorType& x = norm.input(gradient ? 1 : 0);
      if (!free(norm) || fetched(inner) || uses_at(inner).size() != 1) continue;
      if (!taken_by_kernels(x) || other.type() != x || norm.input(0) != x) continue;
      if (written_between(norm, add)) continue;
      take(norm);
      take(add);
      emit_at(add, [this, &add, &norm, other, fixed, gradient] {
        rebuild_.map(first(add), gradient ? add_to_gradient(norm, now(other))
                                          : add_to_norm(norm, now(other), fixed));
      });
      return;
    }
  }

  Value add_to_norm(const Node& n, Value other, bool fixed) {
    const Value x = now(n.inputs[0]);
    if (fixed) {
      return ops::batch_norm_fixed_add(x, moments(n, 1), affine(n), other,
                                       n.attributes.number("eps"));
    }
    return ops::batch_norm_add(x, moments(n, 1), affine(n), other, options_of(n));
  }

  Value add_to_gradient(const Node& g, Value other) {
    return ops::batch_norm_input_grad_add(now(g.inputs[0]), now(g.inputs[1]), moments(g, 2),
                                          now(g.inputs[4]), {now(g.inputs[5]), now(g.inputs[6])},
                                          other, options_of(g));
  }

  ops::Affine affine(const Node& norm) const { return {now(norm.inputs[3]), now(norm.inputs[4])}; }
};

}  // namespace

std::unique_ptr<Graph> fuse(const Graph& graph, const TakenByKernels& taken) {
  return fuse_norm_pairs(*fuse_whole_norms(*Neighbours(graph, taken).run(), taken), taken);
}

}  // namespace ftrain
