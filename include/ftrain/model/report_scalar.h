// Numbers of a step that are told with it: a norm, a share, a learned temperature.
//
// Whoever emits a part of the step (a backbone, a strategy, an optimizer) reports a scalar under a
// name, and every step's line has it: on the console, as `metrics` in metrics.jsonl and in
// summary.json, in StepReport::metrics for observers. A step in several parts (gradient
// accumulation) reports the mean of what its parts report. Of several ranks the first one's value
// is told: what is to be of all ranks is reduced over them in the graph.
//
// Reported under the name `t`, a value is the graph's fetch "metric.t". Threads: the graph's.
// Failure: ShapeError when it is no f32 scalar, PluginError when the name is taken or no name.
#pragma once

#include <string_view>

#include "ftrain/graph/graph.h"
#include "ftrain/model/scope.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// What the fetches of reported scalars begin with.
inline constexpr std::string_view metric_prefix = "metric.";

// `name`: letters, digits, '_', '-' and '.'; one value a name and part of the step.
FTRAIN_API void report_scalar(Graph& graph, std::string_view name, Value value);
// The same from a backbone's layer. Evaluations report nothing.
FTRAIN_API void report_scalar(const Scope& scope, std::string_view name, Value value);

}  // namespace ftrain
