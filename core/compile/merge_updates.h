// Puts the optimizer's updates of many tensors into one op, so that a step's hundred small
// parameters cost one parallel region and share it evenly.
//
// Merged are updates with the same attributes, rate and conditions between which nothing else
// happens. Every element is updated as before, to the bit.
#pragma once

#include <memory>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

// optimizer_update_many. Inputs: rate, ok, coefficient and step (may be invalid), then for each
// tensor parameter, gradient, slots; with copies behind them one for each tensor (may be invalid).
// Attributes: those of optimizer_update, the number of tensors, and `copies` where there are any.
//
// A copy is the parameter in another type, `cast(parameter)` kept by a device from run to run: it
// is written anew with the parameter.
struct FTRAIN_API ManyUpdates {
  static constexpr std::size_t rate = 0, ok = 1, coefficient = 2, step = 3, first_tensor = 4;

  std::size_t tensors = 0, slots = 0;
  bool copies = false;

  explicit ManyUpdates(const Node& node);
  // Where tensor t's parameter is among the inputs; its gradient and slots follow.
  std::size_t parameter(std::size_t t) const { return first_tensor + t * (2 + slots); }
  // Where its copy is; with copies alone.
  std::size_t copy(std::size_t t) const { return parameter(tensors) + t; }
};

namespace ops::def {
FTRAIN_API extern const OpDef optimizer_update_many;
}

struct TensorUpdate {
  Value parameter, gradient;
  std::vector<Value> slots;
  Value copy = {};
};
FTRAIN_API void optimizer_update_many(const std::vector<TensorUpdate>& tensors, Value rate,
                                      Value coefficient, Value ok, Value step,
                                      std::shared_ptr<const Payload> update, double rate_factor,
                                      double decay);

FTRAIN_API std::unique_ptr<Graph> merge_updates(const Graph& graph);

}  // namespace ftrain
