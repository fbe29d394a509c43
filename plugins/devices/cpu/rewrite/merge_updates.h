// Puts the optimizer's updates of many tensors into one op, so that a step's hundred small
// parameters cost one parallel region and share it evenly.
//
// Merged are updates with the same attributes, rate and conditions between which nothing else
// happens. Every element is updated as before, to the bit.
#pragma once

#include <memory>
#include <vector>

#include "core/graph/graph.h"

namespace ftrain::cpu {

// optimizer_update_many. Inputs: rate, ok, coefficient (may be invalid), then for each tensor
// parameter, gradient, slots. Attributes: those of optimizer_update, and the number of tensors.
struct ManyUpdates {
  static constexpr std::size_t first_tensor = 3;

  std::size_t tensors = 0, slots = 0;

  explicit ManyUpdates(const Node& node);
  // Where tensor t's parameter is among the inputs; its gradient and slots follow.
  std::size_t parameter(std::size_t t) const { return first_tensor + t * (2 + slots); }
};

struct TensorUpdate {
  Value parameter, gradient;
  std::vector<Value> slots;
};
void optimizer_update_many(const std::vector<TensorUpdate>& tensors, Value rate, Value coefficient,
                           Value ok, std::shared_ptr<const Payload> update, double rate_factor,
                           double decay);

std::unique_ptr<Graph> merge_updates(const Graph& graph);

}  // namespace ftrain::cpu
