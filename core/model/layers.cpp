#include "ftrain/model/layers.h"

#include "ftrain/base/philox.h"

namespace ftrain::layers {
namespace {

// Names the last node for plans and messages.
Value named(Value value, std::string name) {
  value.graph().node(value.node_index()).name = std::move(name);
  return value;
}

}  // namespace

Value conv2d(const Scope& scope, const std::string& name, Value x, std::int64_t out,
             std::int64_t kernel, const ops::Conv2d& options, Initializer weight) {
  const Scope layer = scope / name;
  const Value w =
      layer.parameter("weight", {out, x.shape()[1] / options.groups, kernel, kernel}, weight);
  return named(ops::conv2d(x, w, options), scope.path(name));
}

Value batch_norm(const Scope& scope, const std::string& name, Value x,
                 const BatchNormOptions& options) {
  const Scope layer = scope / name;
  Build& build = scope.build();
  const Shape channels{x.shape()[1]};
  const Value gamma = layer.parameter("weight", channels, {Initializer::Kind::constant, 1, 0},
                                      !options.frozen_gamma);
  const Value beta = layer.parameter("bias", channels, {});
  const Value running_mean = layer.statistic("running_mean", channels, 0);
  const Value running_variance = layer.statistic("running_var", channels, 1);
  if (!build.training) {
    return named(ops::batch_norm_fixed(x, running_mean, running_variance, gamma, beta, options.eps),
                 scope.path(name));
  }
  const std::int64_t ranks = build.global_norm ? build.ranks : 1;
  const std::int64_t groups = build.global_norm ? 1 : build.norm_groups;
  const ops::Moments moments = ops::combine_moments(ops::batch_moments(x, groups), ranks);
  const std::int64_t count = x.shape().elements() / x.shape()[1] / groups * ranks;
  build.at_end.push_back([=](Value ok) {
    ops::update_running(running_mean, running_variance, moments, ok, options.momentum, count);
  });
  return named(ops::batch_norm(x, moments, gamma, beta, {options.eps, ranks}), scope.path(name));
}

Value prelu(const Scope& scope, const std::string& name, Value x) {
  const Value slope =
      (scope / name).parameter("weight", {x.shape()[1]}, {Initializer::Kind::constant, 0.25, 0});
  return named(ops::prelu(x, slope), scope.path(name));
}

Value linear(const Scope& scope, const std::string& name, Value x, std::int64_t out, bool bias,
             Initializer weight, Initializer bias_initializer) {
  const Scope layer = scope / name;
  const Value w = layer.parameter("weight", {out, x.shape()[1]}, weight);
  const Value b = bias ? layer.parameter("bias", {out}, bias_initializer) : Value();
  return named(ops::linear(x, w, b), scope.path(name));
}

Value dropout(const Scope& scope, const std::string& name, Value x, double p) {
  const Build& build = scope.build();
  if (!build.training || p == 0) return x;
  return named(
      ops::dropout(x, p, build.step, build.seed ^ name_hash(scope.path(name)), build.first_sample),
      scope.path(name));
}

}  // namespace ftrain::layers
