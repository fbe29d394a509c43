// The class-center step with class centers split over ranks: every rank sees all samples of the
// global batch and its own classes. Model parallel walks all of its rows, Partial FC a sample.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/model/parallelism.h"

namespace ftrain {

struct ClassSampling {
  double rate = 1;        // 1: every row
  bool all_rows = false;  // rows that were not sampled keep moving by momentum and decay
};

// `wire`: what features travel in from rank to rank; nothing: their own type. `update`: how rows
// change, see Parallelism::row_update.
ClassCenterStep sharded_class_centers(const StepBuild& build, Value embedding, Value labels,
                                      Value weight, const std::vector<Value>& slots,
                                      std::int64_t first_class, const ClassSampling& sampling,
                                      std::optional<DType> wire, ops::RowUpdate update,
                                      PartialGradients& so_far);

// What Parallelism::signals gives.
HeadSignals sharded_signals(const StepBuild& build, Value embedding, Value labels, Value weight,
                            std::int64_t first_class, std::optional<DType> wire);

inline std::optional<DType> wire_of(const std::string& features) {
  return features == "bf16" ? std::optional(DType::bf16) : std::nullopt;
}

}  // namespace ftrain
