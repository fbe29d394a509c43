// Times plans of one convolution against each other, on memory of its own.
#pragma once

#include <memory>
#include <vector>

#include "plugins/devices/cuda/cudnn/plan.h"

namespace ftrain::cuda {

// Seconds of each plan, the best of its launches; 0 for one that failed. Empty where the device's
// memory does not hold the operands. Waits for the device.
std::vector<double> measure_plans(const ConvolutionProblem& problem,
                                  const std::vector<std::shared_ptr<const Plan>>& plans,
                                  cudnnHandle_t handle);

// Which to take: of those within 2 % of the fastest the one with the least workspace. As many as
// there are plans when none has a time.
std::size_t fastest(const std::vector<std::shared_ptr<const Plan>>& plans,
                    const std::vector<double>& seconds);

}  // namespace ftrain::cuda
