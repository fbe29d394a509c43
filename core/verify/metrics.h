// The metrics that are there without a plugin, and what all of a job's make of one set.
#pragma once

#include <memory>
#include <span>

#include "ftrain/plugin/api.h"
#include "ftrain/plugin/registry.h"
#include "ftrain/verify/metric.h"
#include "ftrain/verify/protocol.h"

namespace ftrain {

// Adds `accuracy` (values mean, deviation, threshold), `xnorm` (value xnorm) and `tar` (values
// "tar.1e-3" and so on), unless they are there.
FTRAIN_API void add_metrics(Registry& registry);

// DataError when two metrics give one name.
FTRAIN_API Accuracy measure(const VerifiedSet& set,
                            std::span<const std::unique_ptr<Metric>> metrics);

}  // namespace ftrain
