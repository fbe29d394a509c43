#include "plugins/devices/cpu/rewrite/depthwise.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <map>
#include <set>

#include "core/compile/passes.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/rewrite/depthwise_ops.h"
#include "plugins/devices/cpu/simd/depthwise.h"

namespace ftrain::cpu {
namespace {

// A batch norm with its PReLU, forward and backward.
struct NormNodes {
  const Node *moments = nullptr, *norm = nullptr, *prelu = nullptr;
  const Node *prelu_grad = nullptr, *sums = nullptr, *input_grad = nullptr;
};

struct BlockNodes {
  NormNodes first, second;
  const Node *convolution = nullptr, *input_grad = nullptr, *weight_grad = nullptr;

  std::vector<const Node*> all() const {
    return {first.moments,    first.norm,        first.prelu, first.prelu_grad, first.sums,
            first.input_grad, second.moments,    second.norm, second.prelu,     second.prelu_grad,
            second.sums,      second.input_grad, convolution, input_grad,       weight_grad};
  }
};

class Pass {
 public:
  explicit Pass(const Graph& old) : old_(old), rebuild_(old), uses_(uses_of(old)) {
    for (const Graph::Named& fetch : old.fetches()) {
      fetched_.insert({fetch.value.node_index(), fetch.value.output()});
    }
  }

  std::unique_ptr<Graph> run() {
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      if (old_.node(i).op == &ops::def::conv2d) match(old_.node(i));
    }
    // Leaves first: a block stands where its first node stood, and takes states of its last.
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      if (old_.node(i).op->leaf) rebuild_.copy(old_.node(i));
    }
    for (std::int32_t i = 0; i < old_.size(); ++i) {
      if (old_.node(i).op->leaf) continue;
      const auto action = actions_.find(i);
      action != actions_.end() ? action->second() : rebuild_.copy(old_.node(i));
    }
    return rebuild_.finish();
  }

 private:
  static Value first_of(const Node* node, std::int32_t output = 0) {
    return {&node->inputs[0].graph(), node->index, output};
  }

  // The only use, or the only one by an op of that name; nullptr otherwise.
  const Node* user(Value value, const OpDef& op) const {
    const Node* found = nullptr;
    for (const std::int32_t use : uses(value)) {
      const Node& node = old_.node(use);
      if (node.op != &op) continue;
      if (found != nullptr) return nullptr;
      found = &node;
    }
    return found;
  }

  // Whether nobody sees this value but these nodes.
  bool within(Value value, std::initializer_list<const Node*> users) const {
    if (fetched_.contains({value.node_index(), value.output()})) return false;
    return std::all_of(uses(value).begin(), uses(value).end(), [&](std::int32_t use) {
      return std::any_of(users.begin(), users.end(),
                         [&](const Node* node) { return node->index == use; });
    });
  }

  const std::vector<std::int32_t>& uses(Value value) const {
    return uses_[static_cast<std::size_t>(value.node_index())]
                [static_cast<std::size_t>(value.output())];
  }

  static bool has_inputs(const Node& node, std::size_t first, std::initializer_list<Value> values) {
    return std::equal(values.begin(), values.end(),
                      node.inputs.begin() + static_cast<std::ptrdiff_t>(first));
  }

  // Everything about the norm, from its batch_norm node on.
  bool match_norm(NormNodes& n) const {
    const Node& norm = *n.norm;
    n.moments = &norm.inputs[1].node();
    if (n.moments->op != &ops::def::batch_moments || n.moments->attributes.integer("groups") != 1 ||
        norm.attributes.integer("ranks") != 1 || n.moments->inputs[0] != norm.inputs[0]) {
      return false;
    }
    const Value x = norm.inputs[0], mean = first_of(n.moments), variance = mean.sibling(1);
    const Value normed = first_of(n.norm);
    n.prelu = user(normed, ops::def::prelu);
    n.prelu_grad = user(normed, ops::def::prelu_grad);
    if (!has_inputs(norm, 1, {mean, variance}) || !n.prelu || !n.prelu_grad ||
        !has_inputs(*n.prelu_grad, 1, {normed, n.prelu->inputs[1]}) ||
        !within(normed, {n.prelu, n.prelu_grad})) {
      return false;
    }
    const Value dz = first_of(n.prelu_grad);
    n.sums = user(dz, ops::def::batch_norm_sums);
    n.input_grad = user(dz, ops::def::batch_norm_input_grad);
    if (!n.sums || !n.input_grad || !within(dz, {n.sums, n.input_grad})) return false;
    const double eps = norm.attributes.number("eps");
    const Value dgamma = first_of(n.sums);
    return has_inputs(*n.sums, 0, {dz, x, mean, variance}) &&
           has_inputs(*n.input_grad, 0,
                      {dz, x, mean, variance, norm.inputs[3], dgamma, dgamma.sibling(1)}) &&
           n.sums->attributes.number("eps") == eps &&
           n.input_grad->attributes.number("eps") == eps &&
           n.input_grad->attributes.integer("ranks") == 1;
  }

  void match(const Node& convolution) {
    BlockNodes b;
    b.convolution = &convolution;
    const Value a = convolution.inputs[0], weight = convolution.inputs[1];
    const Value z = first_of(&convolution);
    if (!refuse_depthwise(a.type(), weight.type(), z.type(),
                          convolution.attributes.integer("stride"),
                          convolution.attributes.integer("padding"))
             .empty() ||
        a.node().op != &ops::def::prelu || a.node().inputs[0].node().op != &ops::def::batch_norm) {
      return;
    }
    b.first.norm = &a.node().inputs[0].node();
    b.second.norm = user(z, ops::def::batch_norm);
    if (!b.second.norm || b.second.norm->inputs[0] != z) return;
    if (!match_norm(b.first) || !match_norm(b.second) || first_of(b.first.prelu) != a) return;
    const Value dz = first_of(b.second.input_grad), da = b.first.prelu_grad->inputs[0];
    b.input_grad = &da.node();
    b.weight_grad = user(dz, ops::def::conv2d_weight_grad);
    if (b.input_grad->op != &ops::def::conv2d_input_grad || !b.weight_grad ||
        !has_inputs(*b.input_grad, 0, {dz, weight}) || !has_inputs(*b.weight_grad, 0, {dz, a}) ||
        !within(a, {&convolution, b.weight_grad}) || !within(dz, {b.input_grad, b.weight_grad}) ||
        !within(da, {b.first.prelu_grad})) {
      return;
    }
    if (same_types(b) && in_order(b)) take(b);
  }

  // The two ops give all activations one type, that of x.
  static bool same_types(const BlockNodes& b) {
    const TensorType& x = b.first.norm->input(0);
    const TensorType& z = first_of(b.convolution).type();
    const TensorType& dweight = first_of(b.weight_grad).type();
    return first_of(b.first.prelu).type() == x && first_of(b.first.input_grad).type() == x &&
           first_of(b.input_grad).type() == x && first_of(b.second.prelu).type() == z &&
           b.second.prelu_grad->input(0) == z && first_of(b.second.input_grad).type() == z &&
           dweight == b.convolution->input(1);
  }

  // What the ops take is there before the first of the nodes that they stand for, and no state
  // among it is written before the last.
  bool in_order(const BlockNodes& b) const {
    const std::vector<const Node*> nodes = b.all();
    const auto later = [](const Node* x, const Node* y) { return x->index < y->index; };
    const Node* const begin = *std::min_element(nodes.begin(), nodes.end(), later);
    const Node* const end = *std::max_element(nodes.begin(), nodes.end(), later);
    if (begin != b.first.moments) return false;
    std::set<std::int32_t> states;
    for (const Node* const node :
         {b.first.norm, b.first.prelu, b.convolution, b.second.norm, b.second.prelu}) {
      for (std::size_t i = 1; i < node->inputs.size(); ++i) {
        const Node& from = node->inputs[i].node();
        const bool within = &from == b.first.moments || &from == b.second.moments;
        if (from.op->leaf) states.insert(from.index);
        if (!from.op->leaf && !within) return false;
      }
    }
    for (std::int32_t i = begin->index; i < end->index; ++i) {
      for (const int w : written_inputs(old_.node(i))) {
        if (states.contains(old_.node(i).inputs[static_cast<std::size_t>(w)].node_index())) {
          return false;
        }
      }
    }
    // The gradient is emitted where its first node stood.
    const Node* const first = b.second.prelu_grad;
    for (const Node* const node : {b.second.sums, b.second.input_grad, b.input_grad, b.weight_grad,
                                   b.first.prelu_grad, b.first.sums, b.first.input_grad}) {
      if (node->index < first->index) return false;
    }
    return true;
  }

  void take(const BlockNodes& b) {
    for (const Node* const node : b.all()) {
      if (actions_.contains(node->index)) return;
    }
    for (const Node* const node : b.all()) actions_[node->index] = [] {};
    actions_[b.first.moments->index] = [this, b] { emit_forward(b); };
    actions_[b.second.prelu_grad->index] = [this, b] { emit_backward(b); };
  }

  Value now(Value old) const { return rebuild_[old]; }

  NormAndSlope norm_of(const NormNodes& n) const {
    return {{now(n.norm->inputs[3]), now(n.norm->inputs[4])},
            now(n.prelu->inputs[1]),
            n.norm->attributes.number("eps")};
  }

  static ops::Conv2d options_of(const Node& node) {
    return {node.attributes.integer("stride"), node.attributes.integer("padding"),
            node.attributes.integer("groups")};
  }

  void emit_forward(const BlockNodes& b) {
    const DepthwiseBlock made = depthwise_block(now(b.first.norm->inputs[0]), norm_of(b.first),
                                                now(b.convolution->inputs[1]), norm_of(b.second),
                                                options_of(*b.convolution));
    rebuild_.graph().node(made.y.node_index()).name = b.convolution->name;
    map_moments(b.first, made.first);
    map_moments(b.second, made.second);
    rebuild_.map(first_of(b.convolution), made.z);
    rebuild_.map(first_of(b.second.prelu), made.y);
    made_[b.convolution->index] = made;
  }

  void emit_backward(const BlockNodes& b) {
    const DepthwiseBlockGrad made =
        depthwise_block_grad(now(b.second.prelu_grad->inputs[0]), now(b.first.norm->inputs[0]),
                             norm_of(b.first), now(b.convolution->inputs[1]), norm_of(b.second),
                             made_.at(b.convolution->index), options_of(*b.convolution));
    rebuild_.graph().node(made.x.node_index()).name = b.convolution->name;
    map_gradients(b.first, made.first);
    map_gradients(b.second, made.second);
    rebuild_.map(first_of(b.weight_grad), made.weight);
    rebuild_.map(first_of(b.first.input_grad), made.x);
  }

  void map_moments(const NormNodes& n, const ops::Moments& moments) {
    rebuild_.map(first_of(n.moments), moments.mean);
    rebuild_.map(first_of(n.moments, 1), moments.variance);
  }

  void map_gradients(const NormNodes& n, const NormAndSlopeGrad& grad) {
    rebuild_.map(first_of(n.sums), grad.sums.gamma);
    rebuild_.map(first_of(n.sums, 1), grad.sums.beta);
    rebuild_.map(first_of(n.prelu_grad, 1), grad.slope);
  }

  const Graph& old_;
  Rebuild rebuild_;
  std::vector<std::vector<std::vector<std::int32_t>>> uses_;
  std::set<std::pair<std::int32_t, std::int32_t>> fetched_;
  std::map<std::int32_t, std::function<void()>> actions_;  // by old node
  std::map<std::int32_t, DepthwiseBlock> made_;            // by old convolution
};

}  // namespace

std::unique_ptr<Graph> fuse_depthwise(const Graph& graph) {
  return Pass(graph).run();
}

}  // namespace ftrain::cpu
