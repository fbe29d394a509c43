// A planned step in words, and as JSON.
#pragma once

#include <string>

#include "ftrain/config/table.h"
#include "launch/step_plan.h"

namespace ftrain::launch {

// The whole plan without its nodes.
std::string plan_text(const StepPlan& plan, const Job& job);
// The plan as one JSON object, kernels by node among it.
std::string plan_json(const StepPlan& plan, const Job& job);

}  // namespace ftrain::launch
