#include "ftrain/model/scope.h"

namespace ftrain {

Value Scope::parameter(const std::string& name, Shape shape, Initializer initializer,
                       bool trainable) const {
  const std::string full = path(name);
  if (const Value existing = build_.graph.find_state(full); existing.valid()) return existing;
  return build_.graph.state({.role = StateSpec::Role::parameter,
                             .name = full,
                             .type = {build_.dtype, std::move(shape)},
                             .initializer = initializer,
                             .trainable = trainable});
}

Value Scope::statistic(const std::string& name, Shape shape, double initial) const {
  const std::string full = path(name);
  if (const Value existing = build_.graph.find_state(full); existing.valid()) return existing;
  return build_.graph.state({.role = StateSpec::Role::statistic,
                             .name = full,
                             .type = {build_.dtype, std::move(shape)},
                             .initializer = {Initializer::Kind::constant, initial, 0},
                             .trainable = false});
}

}  // namespace ftrain
