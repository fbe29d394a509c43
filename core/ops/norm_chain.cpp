#include "core/ops/norm_chain.h"

#include <string_view>

#include "core/ops/sums.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using Values = std::vector<Value>;
using Types = std::vector<TensorType>;
using Statistics = NormChain::Statistics;
using Tail = NormChain::Tail;
using Before = NormChainGrad::Before;

// Takes the word off the front of a list of stages; false, and nothing taken, when it is another.
bool take(std::string_view& stages, std::string_view word) {
  if (!stages.starts_with(word)) return false;
  if (stages.size() > word.size() && stages[word.size()] != ' ') return false;
  stages.remove_prefix(std::min(word.size() + 1, stages.size()));
  return true;
}

void put(std::string& stages, std::string_view word) {
  if (!stages.empty()) stages += ' ';
  stages += word;
}

// ---- shapes

void require_image(const Node& node, std::size_t x) {
  const Shape& shape = node.input(x).shape;
  require(shape.rank() == 4 || shape.rank() == 2, node, "x must be [N, C, H, W] or [N, C]");
}

void require_channels(const Node& node, std::size_t x, std::size_t first, std::size_t last) {
  const Shape channels{node.input(x).shape[1]};
  for (std::size_t i = first; i < last; ++i) {
    require(node.input(i).shape == channels, node, "gamma, beta and slope must be [C]");
  }
}

void require_like(const Node& node, std::size_t x, std::size_t i) {
  require(node.input(i).shape == node.input(x).shape, node,
          "gradients and addends must have x's shape");
}

void require_moments(const Node& node, std::size_t x, std::size_t mean) {
  const Shape& shape = node.input(x).shape;
  for (const std::size_t i : {mean, mean + 1}) {
    const Shape& moments = node.input(i).shape;
    require(moments.rank() == 2 && moments[1] == shape[1] && shape[0] % moments[0] == 0, node,
            "the moments must be [groups, C]");
  }
}

Types infer_chain(const Node& node) {
  const NormChain chain = NormChain::of(node);
  const TensorType& x = node.input(0);
  require_image(node, 0);
  if (chain.statistics == Statistics::given) require_moments(node, 0, chain.mean());
  if (chain.statistics == Statistics::constant) {
    for (const std::size_t i : {chain.mean(), chain.mean() + 1}) {
      require(node.input(i).shape == Shape{x.shape[1]}, node, "the statistics must be [C]");
    }
  }
  require_channels(node, 0, chain.gamma(), chain.beta() + 1);
  if (chain.tail == Tail::prelu) {
    require_channels(node, 0, chain.tail_operand(), chain.tail_operand() + 1);
  }
  if (chain.tail == Tail::add) require_like(node, 0, chain.tail_operand());
  if (chain.statistics != Statistics::own) return {x};
  const std::int64_t groups = node.attributes.integer("groups");
  require(groups > 0 && x.shape[0] % groups == 0, node,
          "the batch must be a multiple of the groups");
  const TensorType moments{sum_type(x.dtype), Shape{groups, x.shape[1]}};
  Types types{x, moments, moments};
  if (chain.norm_follows) {
    require_channels(node, 0, chain.second_gamma(), chain.second_gamma() + 2);
    types.insert(types.end(), {x, moments, moments});
  }
  return types;
}

// The operands of a norm from x on: x, mean, variance, gamma [, beta, slope].
void require_norm(const Node& node, std::size_t x, bool prelu) {
  require_image(node, x);
  require_moments(node, x, x + 1);
  require_channels(node, x, x + 3, x + (prelu ? 6 : 4));
}

Types infer_grad(const Node& node) {
  const NormChainGrad chain = NormChainGrad::of(node);
  const std::size_t x = chain.x();
  require_norm(node, x, chain.prelu);
  require_like(node, x, 0);
  Types types;
  if (chain.before == Before::sum) {
    require_like(node, x, 1);
    types.push_back(node.input(0));
  }
  if (chain.before == Before::norm) {
    require_norm(node, 1, false);
    for (const std::size_t i : {std::size_t{1}, std::size_t{5}}) require_like(node, x, i);
    types.insert(types.end(), {node.input(1), node.input(2), node.input(2)});
  }
  if (chain.add) require_like(node, x, chain.other());
  if (chain.input) types.push_back(node.input(x));
  if (!chain.sums) return types;
  types.insert(types.end(), {node.input(x + 1), node.input(x + 1)});
  if (chain.prelu) types.push_back(node.input(x + 5));
  return types;
}

// ---- decompositions

Values decompose_chain(Graph&, const Node& node) {
  const NormChain chain = NormChain::of(node);
  const Value x = node.inputs[0];
  const Value gamma = node.inputs[chain.gamma()], beta = node.inputs[chain.beta()];
  const double eps = node.attributes.number("eps");
  const bool own = chain.statistics == Statistics::own;
  const std::int64_t groups = own ? node.attributes.integer("groups") : 1;
  const ops::Moments moments =
      own ? ops::batch_moments(x, groups)
          : ops::Moments{node.inputs[chain.mean()], node.inputs[chain.mean() + 1]};
  Value y = chain.statistics == Statistics::constant
                ? ops::batch_norm_fixed(x, moments.mean, moments.variance, gamma, beta, eps)
                : ops::batch_norm(x, moments, gamma, beta,
                                  {eps, own ? 1 : node.attributes.integer("ranks")});
  if (chain.tail == Tail::prelu) y = ops::prelu(y, node.inputs[chain.tail_operand()]);
  if (chain.tail == Tail::add) y = ops::add(y, node.inputs[chain.tail_operand()]);
  if (!own) return {y};
  Values values{y, moments.mean, moments.variance};
  if (chain.norm_follows) {
    const ops::Moments second = ops::batch_moments(y, groups);
    const Value z = ops::batch_norm(y, second, node.inputs[chain.second_gamma()],
                                    node.inputs[chain.second_gamma() + 1],
                                    {node.attributes.number("second_eps"), 1});
    values.insert(values.end(), {z, second.mean, second.variance});
  }
  return values;
}

ops::NormOperands operands_of(const Node& node, std::size_t x, bool prelu, const char* eps) {
  ops::NormOperands norm{.x = node.inputs[x],
                         .moments = {node.inputs[x + 1], node.inputs[x + 2]},
                         .gamma = node.inputs[x + 3],
                         .beta = {},
                         .slope = {},
                         .eps = node.attributes.number(eps)};
  if (prelu) {
    norm.beta = node.inputs[x + 4];
    norm.slope = node.inputs[x + 5];
  }
  return norm;
}

// The PReLU's gradient at z, which is made of x again.
ops::PReluGrad through_prelu(Value dy, const ops::NormOperands& norm) {
  const Value z = ops::batch_norm(norm.x, norm.moments, norm.gamma, norm.beta, {norm.eps, 1});
  return ops::prelu_grad(dy, z, norm.slope);
}

Values decompose_grad(Graph&, const Node& node) {
  const NormChainGrad chain = NormChainGrad::of(node);
  Values values;
  Value dy = node.inputs[0];
  if (chain.before == Before::sum) {
    dy = ops::add(dy, node.inputs[1]);
    values.push_back(dy);
  }
  if (chain.before == Before::norm) {
    const ops::NormOperands outer = operands_of(node, 1, false, "eps");
    const ops::BatchNormSums sums = ops::batch_norm_sums(dy, outer.x, outer.moments, outer.eps);
    dy = ops::add(
        ops::batch_norm_input_grad(dy, outer.x, outer.moments, outer.gamma, sums, {outer.eps, 1}),
        node.inputs[5]);
    values.insert(values.end(), {dy, sums.gamma, sums.beta});
  }
  const ops::NormOperands norm =
      operands_of(node, chain.x(), chain.prelu, chain.before == Before::norm ? "inner_eps" : "eps");
  ops::PReluGrad through{dy, {}};
  if (chain.prelu) through = through_prelu(dy, norm);
  const ops::BatchNormSums sums =
      chain.sums ? ops::batch_norm_sums(through.x, norm.x, norm.moments, norm.eps)
                 : ops::BatchNormSums{node.inputs[chain.given_sums()],
                                      node.inputs[chain.given_sums() + 1]};
  if (chain.input) {
    const std::int64_t ranks = chain.sums ? 1 : node.attributes.integer("ranks");
    Value dx = ops::batch_norm_input_grad(through.x, norm.x, norm.moments, norm.gamma, sums,
                                          {norm.eps, ranks});
    if (chain.add) dx = ops::add(dx, node.inputs[chain.other()]);
    values.push_back(dx);
  }
  if (!chain.sums) return values;
  values.insert(values.end(), {sums.gamma, sums.beta});
  if (chain.prelu) values.push_back(through.slope);
  return values;
}

// ---- emitting

Attributes attributes_of(const NormChain& chain, double eps) {
  return {{"stages", chain.text()}, {"eps", eps}};
}
Attributes attributes_of(const NormChainGrad& chain, double eps) {
  return {{"stages", chain.text()}, {"eps", eps}};
}

template <class Chain>
Value emit_given(const OpDef& op, const Chain& chain, Values inputs,
                 const ops::BatchNorm& options) {
  Attributes attributes = attributes_of(chain, options.eps);
  attributes.set("ranks", options.ranks);
  return inputs[0].graph().emit(op, std::move(inputs), std::move(attributes));
}

Value emit_own(const NormChain& chain, Values inputs, const ops::WholeOptions& options,
               double second_eps = 0) {
  Attributes attributes = attributes_of(chain, options.eps);
  if (chain.norm_follows) attributes.set("second_eps", second_eps);
  attributes.set("groups", options.groups);
  return inputs[0].graph().emit(ops::def::norm_chain, std::move(inputs), std::move(attributes));
}

ops::WholeNorm norm_at(Value y) {
  return {y, {y.sibling(y.output() + 1), y.sibling(y.output() + 2)}};
}

void append(Values& inputs, const ops::NormOperands& norm) {
  inputs.insert(inputs.end(), {norm.x, norm.moments.mean, norm.moments.variance, norm.gamma});
  if (norm.slope) inputs.insert(inputs.end(), {norm.beta, norm.slope});
}

ops::NormGrad gradients_at(Value first, std::int32_t output, bool slope) {
  return {first.sibling(output),
          {first.sibling(output + 1), first.sibling(output + 2)},
          slope ? first.sibling(output + 3) : Value()};
}

}  // namespace

NormChain NormChain::of(const Node& node) {
  NormChain chain;
  if (node.op != &ops::def::norm_chain) return chain;
  std::string_view stages = node.attributes.text("stages");
  if (take(stages, "statistics")) chain.statistics = Statistics::own;
  if (take(stages, "constant")) chain.statistics = Statistics::constant;
  take(stages, "norm");
  if (take(stages, "prelu")) chain.tail = Tail::prelu;
  if (take(stages, "add")) chain.tail = Tail::add;
  chain.norm_follows = !stages.empty();
  return chain;
}

std::string NormChain::text() const {
  std::string stages;
  if (statistics == Statistics::own) put(stages, "statistics");
  if (statistics == Statistics::constant) put(stages, "constant");
  put(stages, "norm");
  if (tail == Tail::prelu) put(stages, "prelu");
  if (tail == Tail::add) put(stages, "add");
  if (norm_follows) put(stages, "statistics norm");
  return stages;
}

NormChainGrad NormChainGrad::of(const Node& node) {
  NormChainGrad chain;
  std::string_view stages = node.attributes.text("stages");
  if (take(stages, "norm")) chain.before = Before::norm;
  if (take(stages, "add") && chain.before == Before::nothing) chain.before = Before::sum;
  chain.prelu = take(stages, "prelu");
  chain.sums = take(stages, "sums");
  chain.input = take(stages, "input");
  chain.add = take(stages, "add");
  return chain;
}

std::string NormChainGrad::text() const {
  std::string stages;
  if (before == Before::norm) put(stages, "norm");
  if (before != Before::nothing) put(stages, "add");
  if (prelu) put(stages, "prelu");
  if (sums) put(stages, "sums");
  if (input) put(stages, "input");
  if (add) put(stages, "add");
  return stages;
}

std::string chain_title(const Node& node) {
  std::string title(node.op->name);
  if (node.attributes.has("stages")) title += " " + node.attributes.text("stages");
  return title;
}

namespace ops::def {

const OpDef norm_chain{.name = "norm_chain",
                       .infer = infer_chain,
                       .decomposition = decompose_chain,
                       .operands = "x ..."};
const OpDef norm_chain_grad{.name = "norm_chain_grad",
                            .infer = infer_grad,
                            .decomposition = decompose_grad,
                            .operands = "dy ..."};

}  // namespace ops::def

namespace ops {

Value batch_norm_prelu(Value x, Moments moments, Affine affine, Value slope,
                       const BatchNorm& options) {
  return emit_given(def::norm_chain, chains::prelu,
                    {x, moments.mean, moments.variance, affine.gamma, affine.beta, slope}, options);
}

Value batch_norm_add(Value x, Moments moments, Affine affine, Value other,
                     const BatchNorm& options) {
  return emit_given(def::norm_chain, chains::add,
                    {x, moments.mean, moments.variance, affine.gamma, affine.beta, other}, options);
}

Value batch_norm_fixed_prelu(Value x, Moments fixed, Affine affine, Value slope, double eps) {
  return x.graph().emit(def::norm_chain,
                        {x, fixed.mean, fixed.variance, affine.gamma, affine.beta, slope},
                        attributes_of(chains::constant_prelu, eps));
}

Value batch_norm_fixed_add(Value x, Moments fixed, Affine affine, Value other, double eps) {
  return x.graph().emit(def::norm_chain,
                        {x, fixed.mean, fixed.variance, affine.gamma, affine.beta, other},
                        attributes_of(chains::constant_add, eps));
}

BatchNormPReluSums batch_norm_prelu_sums(Value dy, Value x, Moments moments, Affine affine,
                                         Value slope, double eps) {
  const Value dgamma =
      x.graph().emit(def::norm_chain_grad,
                     {dy, x, moments.mean, moments.variance, affine.gamma, affine.beta, slope},
                     attributes_of(chains::prelu_sums, eps));
  return {{dgamma, dgamma.sibling(1)}, dgamma.sibling(2)};
}

Value batch_norm_prelu_input_grad(Value dy, Value x, Moments moments, Affine affine, Value slope,
                                  BatchNormSums sums, const BatchNorm& options) {
  return emit_given(def::norm_chain_grad, chains::prelu_input,
                    {dy, x, moments.mean, moments.variance, affine.gamma, affine.beta, slope,
                     sums.gamma, sums.beta},
                    options);
}

Value batch_norm_input_grad_add(Value dy, Value x, Moments moments, Value gamma, BatchNormSums sums,
                                Value other, const BatchNorm& options) {
  return emit_given(def::norm_chain_grad, chains::input_add,
                    {dy, x, moments.mean, moments.variance, gamma, sums.gamma, sums.beta, other},
                    options);
}

WholeNorm batch_norm_whole(Value x, Affine affine, const WholeOptions& options) {
  return norm_at(emit_own(chains::whole, {x, affine.gamma, affine.beta}, options));
}

WholeNorm batch_norm_whole_prelu(Value x, Affine affine, Value slope, const WholeOptions& options) {
  return norm_at(emit_own(chains::whole_prelu, {x, affine.gamma, affine.beta, slope}, options));
}

WholeNorm batch_norm_whole_add(Value x, Affine affine, Value other, const WholeOptions& options) {
  return norm_at(emit_own(chains::whole_add, {x, affine.gamma, affine.beta, other}, options));
}

NormPair batch_norm_prelu_norm(Value x, Affine first, Value slope, Affine second,
                               const WholeOptions& options, double second_eps) {
  const Value y =
      emit_own(chains::whole_prelu_norm,
               {x, first.gamma, first.beta, slope, second.gamma, second.beta}, options, second_eps);
  return {norm_at(y), norm_at(y.sibling(3))};
}

NormPair batch_norm_add_norm(Value x, Affine first, Value other, Affine second,
                             const WholeOptions& options, double second_eps) {
  const Value y =
      emit_own(chains::whole_add_norm,
               {x, first.gamma, first.beta, other, second.gamma, second.beta}, options, second_eps);
  return {norm_at(y), norm_at(y.sibling(3))};
}

NormGrad batch_norm_grad(Value dy, const NormOperands& norm) {
  const bool prelu = norm.slope.valid();
  Values inputs{dy};
  append(inputs, norm);
  const Value dx =
      dy.graph().emit(def::norm_chain_grad, std::move(inputs),
                      attributes_of(prelu ? chains::prelu_grad : chains::grad, norm.eps));
  return gradients_at(dx, 0, prelu);
}

NormGrad batch_norm_grad_add(Value dy, const NormOperands& norm, Value other) {
  Values inputs{dy};
  append(inputs, norm);
  inputs.push_back(other);
  return gradients_at(dy.graph().emit(def::norm_chain_grad, std::move(inputs),
                                      attributes_of(chains::grad_add, norm.eps)),
                      0, norm.slope.valid());
}

SumThenGrad add_batch_norm_grad(Value a, Value b, const NormOperands& norm) {
  const bool prelu = norm.slope.valid();
  Values inputs{a, b};
  append(inputs, norm);
  const Value d =
      a.graph().emit(def::norm_chain_grad, std::move(inputs),
                     attributes_of(prelu ? chains::sum_prelu_grad : chains::sum_grad, norm.eps));
  return {d, gradients_at(d, 1, prelu)};
}

GradThenGrad batch_norm_grad_pair(Value dz, const NormOperands& outer, Value other,
                                  const NormOperands& inner) {
  const bool prelu = inner.slope.valid();
  Values inputs{dz};
  append(inputs, outer);
  inputs.push_back(other);
  append(inputs, inner);
  Attributes attributes =
      attributes_of(prelu ? chains::norm_prelu_grad : chains::norm_grad, outer.eps);
  attributes.set("inner_eps", inner.eps);
  const Value d = dz.graph().emit(def::norm_chain_grad, std::move(inputs), std::move(attributes));
  return {gradients_at(d, 0, false), gradients_at(d, 3, prelu)};
}

}  // namespace ops
}  // namespace ftrain
